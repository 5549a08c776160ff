"""The window and its loop on SDL's dummy driver: real events in, pixels of the real surface out."""

import numpy as np
import pytest
from virtual_joystick import VirtualJoystick

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.play.actions import make_control
from dreamer_hf.play.joystick import Joystick
from dreamer_hf.play.keyboard_mouse import Keyboard, Mouse
from dreamer_hf.play.pygame_import import pygame
from dreamer_hf.play.session import PlaySession
from dreamer_hf.play.sources import DeviceActions, PatternActions, ScriptedActions
from dreamer_hf.play.window import AMBER, MAX_BARS_BELOW, PlayWindow, View, open_display
from dreamer_hf.play.windowed import PAUSED, PLUGGED, UNPLUGGED, WindowedGame
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


def make_game(world, starts, window, device=None, source=None, **options) -> WindowedGame:
    if device is not None:
        source = DeviceActions(device, make_control(window.space, fps=20, pointer=device.pointer))
    return WindowedGame(PlaySession(world, starts, source or PatternActions(window.space)), window, device, **options)


def press(game, *keys):
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    game.tick()
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key))


def picture_of(window) -> np.ndarray:
    """The picture as shown, (H, W, 3)."""
    return pygame.surfarray.array3d(window.surface.subsurface(window.picture)).swapaxes(0, 1)


def test_the_dream_is_shown_pixel_by_pixel(world, starts, window):
    game = make_game(world, starts, window)
    game.tick()
    scale = window.picture.w // IMAGE_SIZE
    np.testing.assert_array_equal(picture_of(window), game.session.frame.repeat(scale, 0).repeat(scale, 1))


def test_keys_move_the_action_from_where_the_context_left_it(world, starts, window):
    game = make_game(world, starts, window, Keyboard(2))
    begun = game.session.last_action
    press(game, pygame.K_RIGHT)
    step = 512 / (20 * 1.5)
    np.testing.assert_allclose(game.session.last_action, begun + np.array([step, 0]), rtol=1e-5)


def test_the_mouse_points_at_the_target(world, starts, window):
    game = make_game(world, starts, window, Mouse(2, window.picture))
    pygame.event.post(
        pygame.event.Event(pygame.MOUSEMOTION, pos=window.picture.bottomright, rel=(0, 0), buttons=(0, 0, 0))
    )
    game.tick()
    assert game.session.last_action.tolist() == [512, 500]


def test_pause_step_go_on_reset_rewind_and_quit(world, starts, window):
    game = make_game(world, starts, window)
    game.tick()
    press(game, pygame.K_SPACE)
    assert game.paused and game.session.step_index == 1
    game.tick()
    assert game.session.step_index == 1
    press(game, pygame.K_RETURN)
    assert game.paused and game.session.step_index == 2
    press(game, pygame.K_r)
    assert game.paused and (game.session.start_index, game.session.step_index) == (1, 0)
    press(game, pygame.K_SPACE)
    assert not game.paused and game.session.step_index == 1
    for _ in range(12):
        game.tick()
    press(game, pygame.K_BACKSPACE)
    assert game.session.step_index == 13 - 10 + 1
    press(game, pygame.K_ESCAPE)
    assert not game.running


def test_closing_the_window_ends_the_game_and_so_do_the_steps(world, starts, window):
    game = make_game(world, starts, window, steps=4)
    game.run()
    assert game.session.step_index == 4
    game = make_game(world, starts, window)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    game.run()
    assert game.session.step_index <= 1


def test_the_end_of_a_script_waits_for_the_player(world, starts, window):
    game = make_game(world, starts, window, source=ScriptedActions(np.full((3, 2), 250.0)))
    for _ in range(5):
        game.tick()
    assert game.paused and game.session.step_index == 3
    press(game, pygame.K_r)
    assert not game.paused and game.session.step_index == 1


def test_an_unplugged_joystick_pauses_until_it_is_back(world, starts, window):
    pygame.joystick.init()
    pad = VirtualJoystick()
    game = make_game(world, starts, window, Joystick(2))
    game.tick()
    pad.unplug()
    game.tick()
    assert game.banner == UNPLUGGED
    assert tuple(window.surface.get_at(window._banner.move(4, 4).topleft))[:3] == AMBER
    press(game, pygame.K_SPACE)
    assert game.banner == UNPLUGGED and game.session.step_index == 1

    second = VirtualJoystick()
    game.tick()
    assert game.banner == PLUGGED
    second.button(0, True)
    game.tick()
    assert not game.paused and game.session.step_index == 2
    second.unplug()


def test_the_game_is_no_faster_than_the_world(world, starts, window):
    game = make_game(world, starts, window)
    for _ in range(12):
        game.tick()
    assert game.clock.rate < 21  # of 20; a busy machine may be slower


@pytest.mark.parametrize("size", [1, MAX_BARS_BELOW, MAX_BARS_BELOW + 1, 24])
def test_every_bar_has_its_place_in_the_window(world, size):
    open_display()
    names = tuple(f"a_rather_long_joint_name_{i}" for i in range(size))
    ones = np.ones(size, dtype=np.float32)
    space = ActionSpace(names, -ones, ones, ones.astype(bool), ~ones.astype(bool))
    window = PlayWindow((IMAGE_SIZE, IMAGE_SIZE), space, scale=4)
    frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    window.draw(View((frame,), ones, "frame 1", banner=PAUSED, recording=True))
    screen = window.surface.get_rect()
    assert all(screen.contains(part) for part in (window.picture, window._bars, window._banner))
    assert not window._bars.colliderect(window.picture) and not window._bars.colliderect(window._banner)
    pygame.quit()
