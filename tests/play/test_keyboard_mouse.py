"""Keyboard and mouse by real pygame events."""

import numpy as np
import pytest

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.play.controls import KEY_PAIRS
from dreamer_hf.play.devices import Keyboard, Mouse, open_device, pygame
from dreamer_hf.play.window import KEY_COMMANDS


@pytest.fixture(autouse=True)
def screen():
    pygame.display.init()
    yield pygame.display.set_mode((64, 64))
    pygame.quit()


def send(device, *events):
    for event in events:
        pygame.event.post(event)
    for event in pygame.event.get():
        device.handle(event)


def press(key):
    return pygame.event.Event(pygame.KEYDOWN, key=key)


def release(key):
    return pygame.event.Event(pygame.KEYUP, key=key)


def test_held_keys_move_until_they_are_let_go():
    keyboard = Keyboard(3)
    send(keyboard, press(pygame.K_LEFT), press(pygame.K_DOWN))
    for _ in range(3):
        assert keyboard.axes().tolist() == [-1, 1, 0]
    send(keyboard, release(pygame.K_LEFT))
    assert keyboard.axes().tolist() == [0, 1, 0]


def test_opposite_keys_cancel():
    keyboard = Keyboard(1)
    send(keyboard, press(pygame.K_LEFT), press(pygame.K_RIGHT))
    assert keyboard.axes().tolist() == [0]


def test_a_tap_between_two_frames_counts_for_one():
    keyboard = Keyboard(2)
    send(keyboard, press(pygame.K_RIGHT), release(pygame.K_RIGHT))
    assert keyboard.axes().tolist() == [1, 0]
    assert keyboard.axes().tolist() == [0, 0]


def test_losing_the_focus_lets_every_key_go():
    keyboard = Keyboard(2)
    send(keyboard, press(pygame.K_RIGHT))
    keyboard.axes()
    send(keyboard, pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert keyboard.axes().tolist() == [0, 0]


def test_no_key_has_two_meanings():
    keys = [pygame.key.key_code(name) for pair in KEY_PAIRS for name in pair]
    assert len(set(keys)) == len(keys) and not set(keys) & set(KEY_COMMANDS)


def test_the_mouse_gives_its_place_in_the_image():
    mouse = Mouse(2, lambda: pygame.Rect(10, 20, 100, 200))
    assert mouse.axes().tolist() == [0, 0]
    send(mouse, pygame.event.Event(pygame.MOUSEMOTION, pos=(10, 220), rel=(0, 0), buttons=(0, 0, 0)))
    assert mouse.axes().tolist() == [-1, 1]
    send(mouse, pygame.event.Event(pygame.MOUSEMOTION, pos=(5000, 120), rel=(0, 0), buttons=(0, 0, 0)))
    np.testing.assert_allclose(mouse.axes(), [1, 0])


def test_without_a_joystick_the_keyboard_is_taken_and_that_is_said(world, capsys):
    space = ActionSpace.from_config(world.config.dynamics_config)
    assert isinstance(open_device("joystick", space), Keyboard)
    assert "No joystick" in capsys.readouterr().out
    assert isinstance(open_device(None, space), Keyboard)
    assert capsys.readouterr().out == ""
