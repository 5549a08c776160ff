"""The window and its loop on SDL's dummy driver: real events in, pixels of the real surface out."""

import numpy as np
import pytest
from virtual_joystick import VirtualJoystick

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.dreams import Dreams
from dreamer_hf.play.action_sources import DeviceActions, PatternActions, ScriptedActions
from dreamer_hf.play.controls import make_control
from dreamer_hf.play.devices import Joystick, Keyboard, Mouse, pygame
from dreamer_hf.play.game import PAUSED, PLUGGED, UNPLUGGED, Game
from dreamer_hf.play.session import PlaySession
from dreamer_hf.play.window import AMBER, MAX_BARS_BELOW, PlayWindow, View, open_display, shorten, without_common_ends
from tiny import IMAGE_SIZE


@pytest.fixture
def space(world) -> ActionSpace:
    return ActionSpace.from_config(world.config.dynamics_config)


@pytest.fixture
def window(space):
    open_display()
    window = PlayWindow((IMAGE_SIZE, IMAGE_SIZE), space)
    yield window
    pygame.quit()


def make_game(world, starts, window, device=None, source=None, **options) -> Game:
    if device is not None:
        source = DeviceActions(device, make_control(window.space, fps=20, pointer=device.pointer))
    return Game(PlaySession(Dreams(world, starts), source or PatternActions(window.space)), window, device, **options)


def press(game, *keys):
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    game.tick()
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key))


def image_of(window) -> np.ndarray:
    """The image as shown, (H, W, 3)."""
    return pygame.surfarray.array3d(window.surface.subsurface(window.image)).swapaxes(0, 1)


def test_the_dream_is_shown_pixel_by_pixel(world, starts, window):
    game = make_game(world, starts, window)
    game.tick()
    scale = window.image.w // IMAGE_SIZE
    np.testing.assert_array_equal(image_of(window), game.session.dream.frame.repeat(scale, 0).repeat(scale, 1))


def test_keys_move_the_action_from_where_the_context_left_it(world, starts, window):
    game = make_game(world, starts, window, Keyboard(2))
    before = game.session.dream.action
    press(game, pygame.K_RIGHT)
    step = 512 / (20 * 1.5)
    np.testing.assert_allclose(game.session.dream.action, before + np.array([step, 0]), rtol=1e-5)


def test_the_mouse_points_at_the_target(world, starts, window):
    game = make_game(world, starts, window, Mouse(2, lambda: window.image))
    pygame.event.post(
        pygame.event.Event(pygame.MOUSEMOTION, pos=window.image.bottomright, rel=(0, 0), buttons=(0, 0, 0))
    )
    game.tick()
    assert game.session.dream.action.tolist() == [512, 500]


@pytest.mark.slow
def test_pause_step_continue_reset_rewind_and_quit(world, starts, window):
    game = make_game(world, starts, window)
    game.tick()
    press(game, pygame.K_SPACE)
    assert game.paused and game.session.dream.step == 1
    game.tick()
    assert game.session.dream.step == 1
    press(game, pygame.K_RETURN)
    assert game.paused and game.session.dream.step == 2
    press(game, pygame.K_r)
    assert game.paused and (game.session.dream.start, game.session.dream.step) == (1, 0)
    press(game, pygame.K_SPACE)
    assert not game.paused and game.session.dream.step == 1
    for _ in range(12):
        game.tick()
    press(game, pygame.K_BACKSPACE)
    assert game.session.dream.step == 13 - 10 + 1
    press(game, pygame.K_ESCAPE)
    assert not game.running


def test_closing_the_window_ends_the_game_and_so_do_the_steps(world, starts, window):
    game = make_game(world, starts, window, steps=4)
    game.run()
    assert game.session.dream.step == 4
    game = make_game(world, starts, window)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    game.run()
    assert game.session.dream.step <= 1


def test_the_end_of_a_script_waits_for_the_player(world, starts, window):
    game = make_game(world, starts, window, source=ScriptedActions(np.full((3, 2), 250.0)))
    for _ in range(5):
        game.tick()
    assert game.paused and game.session.dream.step == 3
    press(game, pygame.K_r)
    assert not game.paused and game.session.dream.step == 1


def test_an_unplugged_joystick_pauses_until_it_is_back(world, starts, window):
    pygame.joystick.init()
    pad = VirtualJoystick()
    game = make_game(world, starts, window, Joystick(2))
    game.tick()
    pad.unplug()
    game.tick()
    assert game.banner == UNPLUGGED
    assert tuple(window.surface.get_at(window._layout.banner.move(4, 4).topleft))[:3] == AMBER
    press(game, pygame.K_SPACE)
    assert game.banner == UNPLUGGED and game.session.dream.step == 1

    second = VirtualJoystick()
    game.tick()
    assert game.banner == PLUGGED
    second.button(0, True)
    game.tick()
    assert not game.paused and game.session.dream.step == 2
    second.unplug()


@pytest.mark.slow
def test_the_game_is_no_faster_than_the_world(world, starts, window):
    game = make_game(world, starts, window)
    for _ in range(12):
        game.tick()
    assert game.clock.rate < 21  # of 20; a busy machine may be slower


FRAME_SIZES = [(16, 16), (72, 96), (64, 256), (256, 64), (720, 1280)]


@pytest.mark.parametrize("frame_size", FRAME_SIZES)
@pytest.mark.parametrize("size", [1, MAX_BARS_BELOW, MAX_BARS_BELOW + 1, 34, 100])
def test_everything_has_its_place_on_the_screen(monkeypatch, size, frame_size):
    open_display()
    monkeypatch.setattr(pygame.display, "get_desktop_sizes", lambda: [(1366, 768)])
    names = tuple(f"a_rather_long_joint_name_{i}" for i in range(size))
    ones = np.ones(size, dtype=np.float32)
    space = ActionSpace(names, -ones, ones, ones.astype(bool), ~ones.astype(bool))
    window = PlayWindow(frame_size, space)
    frame = np.zeros((*frame_size, 3), np.uint8)
    window.draw(View((frame,), ones, "frame 1", ["left / right"] * size, banner=PAUSED, recording=True))
    screen, layout = window.surface.get_rect(), window._layout
    assert all(screen.contains(part) for part in (window.image, layout.bars, layout.banner))
    assert not layout.bars.colliderect(window.image) and not layout.bars.colliderect(layout.banner)
    assert layout.rows * layout.columns >= size and layout.rows * layout.line <= layout.bars.h
    assert screen.h <= 768
    if size <= 34:
        assert screen.w <= 1366
    height, width = frame_size
    assert abs(window.image.w * height - window.image.h * width) <= max(frame_size)  # not distorted
    pygame.quit()


def test_a_window_that_is_resized_shows_everything_as_large_as_it_fits(window):
    for size in ((900, 900), (600, 500)):
        window.surface = pygame.display.set_mode(size, pygame.RESIZABLE)
        window.handle(pygame.event.Event(pygame.VIDEORESIZE, size=size, w=size[0], h=size[1]))
        frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        window.draw(View((frame,), np.zeros(2, np.float32), "frame 1", banner=PAUSED))
        scale, rest = divmod(window.image.w, IMAGE_SIZE)
        assert rest == 0 and window.image.w == window.image.h
        assert window._layout.size <= size and window._lay_out(scale + 1, size).size[1] > size[1]


def test_a_long_name_is_shortened_in_the_middle(window):
    font = pygame.font.Font(None, 24)
    name = "right_hand.thumb.joint_10.position"
    short = shorten(name, font, 120)
    head, tail = short.split("…")
    assert (
        font.size(short)[0] <= 120 and name.startswith(head) and name.endswith(tail) and head and len(tail) > len(head)
    )
    assert shorten(name, font, 1000) == name


def test_what_all_names_share_is_left_out():
    names = ["robot.left_hand.joint_1.pos", "robot.left_arm.joint_1.pos", "robot.left_hand.joint_2.pos"]
    assert without_common_ends(names) == ["hand.joint_1", "arm.joint_1", "hand.joint_2"]
    assert without_common_ends(["x", "y"]) == ["x", "y"] and without_common_ends(["a.x"]) == ["x"]
