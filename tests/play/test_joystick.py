"""The joystick code on a real SDL joystick, through pygame's own event queue."""

import numpy as np
import pytest
from virtual_joystick import VirtualJoystick

from dreamer_hf.play.devices import DEAD_ZONE, Command, Joystick, apply_dead_zone, open_device, pygame

HAT_UP, HAT_RIGHT = 1, 2


@pytest.fixture
def pad():
    pygame.display.init()
    pygame.joystick.init()
    pad = VirtualJoystick()
    for axis, rest in {2: -1.0, 4: 0.0, 5: -1.0}.items():  # as Linux numbers an Xbox pad: 2 and 5 are the triggers
        pad.axis(axis, rest)
    pygame.event.pump()
    yield pad
    if pygame.joystick.get_count():
        pad.unplug()
    pygame.quit()


def commands(device: Joystick) -> list[Command]:
    return [command for command in map(device.handle, pygame.event.get()) if command is not None]


def test_sticks_triggers_hat_and_bumpers_move_the_actions_in_order(pad):
    device = Joystick(size=8)
    assert device.labels == [*(f"stick axis {i}" for i in (0, 1, 3, 4)), "triggers", "hat x", "hat y", "bumpers"]
    assert not device.axes().any()

    pad.axis(0, 1.0)
    pad.axis(4, -1.0)
    pad.axis(5, 1.0)
    pad.hat(HAT_UP | HAT_RIGHT)
    pad.button(4, True)
    pygame.event.pump()
    np.testing.assert_allclose(device.axes(), [1, 0, 0, -1, 1, 1, -1, -1], atol=1e-3)


def test_the_triggers_are_found_wherever_they_are(pad):
    pad.axis(2, 0.0)
    pad.axis(4, -1.0)  # as SDL numbers its own pads: 4 and 5
    device = Joystick(size=5)
    assert device.labels == [*(f"stick axis {i}" for i in range(4)), "triggers"]
    pad.axis(4, 1.0)
    pygame.event.pump()
    np.testing.assert_allclose(device.axes(), [0, 0, 0, 0, -1], atol=1e-3)


def test_more_actions_than_axes_stay_at_rest(pad):
    assert Joystick(size=10).axes().shape == (10,)
    assert Joystick(size=2).axes().shape == (2,)


def test_dead_zone_has_no_jump_and_reaches_the_ends():
    assert apply_dead_zone(DEAD_ZONE * 0.99) == 0
    assert 0 < apply_dead_zone(DEAD_ZONE + 0.01) < 0.02
    assert apply_dead_zone(1.0) == 1.0 and apply_dead_zone(-1.0) == -1.0


def test_a_worn_stick_is_centered_where_it_rests(pad):
    pad.axis(0, 0.3)
    device = Joystick(size=1)
    assert device.axes()[0] == 0
    for end in (-1.0, 1.0):
        pad.axis(0, end)
        pygame.event.pump()
        assert device.axes()[0] == pytest.approx(end, abs=1e-3)


def test_buttons_are_commands(pad):
    device = Joystick(size=2)
    pygame.event.clear()
    for button in (0, 1, 2, 3):
        pad.button(button, True)
    assert commands(device) == [Command.PAUSE, Command.REWIND, Command.RESET, Command.STEP]


def test_unplugged_it_says_so_and_rests_and_comes_back(pad):
    device = Joystick(size=2)
    pad.axis(0, 1.0)
    pygame.event.get()
    assert device.axes()[0] == pytest.approx(1, abs=1e-3)
    pad.unplug()
    assert commands(device) == [Command.UNPLUGGED]
    assert not device.axes().any()

    second = VirtualJoystick()
    assert commands(device) == [Command.PLUGGED]
    second.axis(1, -1.0)
    pygame.event.pump()
    np.testing.assert_allclose(device.axes(), [0, -1], atol=1e-3)
    second.unplug()


def test_the_joystick_is_taken_when_there_is_one(pad, world):
    from dreamer_hf.action_space import ActionSpace

    assert isinstance(open_device(None, ActionSpace.from_config(world.config.dynamics_config)), Joystick)
