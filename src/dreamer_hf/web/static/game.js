// The game: input goes to where the dream runs, frames come back.

import { normalKey, PlayerInput } from "./input.js";
import { View } from "./view.js";

const MIN_MS_BETWEEN_INPUTS = 20; // far below the server's limit on messages
const PAUSED = "Paused";
const UNPLUGGED = "Gamepad unplugged: plug it in, then continue";

export class Game {
  // connect: returns a new Connection.
  constructor(connect) {
    this.newConnection = connect;
    this.view = new View();
    this.connection = null;
    this.world = null; // null while there is no session
    this.start = 0;
    this.paused = false;
    this.pauseReason = PAUSED;
    this.recording = false;
    this.lastInput = "";
    this.lastInputAt = 0;
    this.inputTimer = null;
    this.commands = {
      pause: () => this.pause(),
      step: () => this.step(),
      rewind: () => this.rewind(),
      reset: () => this.reset(),
      record: () => this.record(),
    };
    this.input = new PlayerInput({
      screen: document.getElementById("screen"),
      locate: (position) => this.view.screen.locate(position),
      pads: document.getElementById("pads"),
      onChange: () => this.#inputChanged(),
      onButton: (button) => this.world && this.commands[{ 0: "pause", 1: "rewind", 2: "reset", 3: "step" }[button]]?.(),
    });
    this.#addListeners();
    // A page that is part of another one waits until somebody wants to play.
    this.view.enable(false);
    if (new URLSearchParams(location.search).has("wait")) this.view.setState("Press Play", { button: "Play" });
    else this.connect();
    requestAnimationFrame(() => this.#onScreenFrame());
  }

  connect() {
    this.view.setState("Connecting …");
    this.connection = this.newConnection();
    let reason = "The connection was lost";
    this.connection.addEventListener("hello", ({ detail }) => this.#onHello(detail));
    this.connection.addEventListener("progress", ({ detail }) => this.view.setProgress(detail));
    this.connection.addEventListener("frame", ({ detail }) => this.#onFrame(detail));
    this.connection.addEventListener("message", ({ detail }) => {
      if (detail.final) reason = detail.error;
      else this.#onMessage(detail);
    });
    this.connection.addEventListener("closed", () => {
      this.world = null;
      this.recording = false;
      this.view.setRecording(false, null);
      this.view.enable(false);
      this.view.setState(reason, { button: "Play again" });
    });
  }

  pause(paused = !this.paused, reason = PAUSED) {
    this.pauseReason = reason;
    this.connection.send({ type: "pause", paused });
  }

  step() {
    this.pauseReason = PAUSED;
    this.connection.send({ type: "step" });
  }

  rewind() {
    if (this.world?.can_rewind) this.connection.send({ type: "rewind" });
  }

  reset(start = (this.start + 1) % this.world.num_starts) {
    this.connection.send({ type: "reset", start });
  }

  record() {
    this.connection.send({ type: "record", on: !this.recording });
  }

  #onHello(world) {
    // A cluster sends another one when an engine has died and a new dream begins.
    this.world = world;
    this.paused = false;
    this.recording = false;
    this.view.setRecording(false, null);
    const { names, keys } = world.actions;
    this.input.setActions({ names, keys, tapMs: 1100 / world.fps });
    this.view.setWorld(world, (start) => this.reset(start));
    this.view.setPaused(false);
    this.view.enable(true);
    this.view.setState(null);
  }

  #onFrame({ header, image }) {
    this.start = header.start;
    this.view.draw(header, image);
    // An input that has not changed is sent again with every frame: the answers measure the latency.
    if (performance.now() - this.lastInputAt >= MIN_MS_BETWEEN_INPUTS) this.#sendInput();
  }

  #onMessage(message) {
    if (message.type === "paused") {
      this.paused = message.paused;
      this.view.setPaused(this.paused);
      this.view.setState(this.paused ? this.pauseReason : null);
      this.connection.forgetArrivals();
    } else if (message.type === "recording") {
      this.recording = message.on;
      this.view.setRecording(message.on, message.url, message.extension);
      if (!message.on && !message.url) this.view.notify("There was no frame to record, so there is no video.");
    } else if (message.type === "error") {
      this.view.notify(message.error);
    }
  }

  // Sends input that has changed immediately, or as soon as the limit on messages allows.
  #inputChanged() {
    if (!this.world || JSON.stringify(this.input.read()) === this.lastInput) return;
    clearTimeout(this.inputTimer);
    const wait = this.lastInputAt + MIN_MS_BETWEEN_INPUTS - performance.now();
    if (wait > 0) this.inputTimer = setTimeout(() => this.#inputChanged(), wait);
    else this.#sendInput();
  }

  #sendInput() {
    if (!this.world) return;
    const input = this.input.read();
    this.lastInput = JSON.stringify(input);
    this.lastInputAt = performance.now();
    this.connection.sendInput(input);
  }

  // Gamepads send no events when an axis moves: they are read with every frame of the screen.
  #onScreenFrame() {
    requestAnimationFrame(() => this.#onScreenFrame());
    if (!this.world) return;
    this.#inputChanged();
    this.view.setFigures(this.paused ? null : this.connection.rate, this.connection.latency);
  }

  #addListeners() {
    const commandOfKey = { " ": "pause", Enter: "step", Backspace: "rewind", r: "reset" };
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.world) return;
      const command = this.commands[commandOfKey[normalKey(event.key)]];
      if (command === undefined && !this.input.keyboard.down(event.key)) return;
      event.preventDefault(); // the page must not scroll
      if (!event.repeat) command?.();
    });
    addEventListener("keyup", (event) => this.input.keyboard.up(event.key));
    addEventListener("blur", () => this.input.keyboard.release()); // keys released elsewhere send no event here
    addEventListener("gamepaddisconnected", () => this.world && this.pause(true, UNPLUGGED));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.world && !this.paused) this.pause(true);
    });
    for (const [id, act] of Object.entries({ ...this.commands, reconnect: () => this.connect() })) {
      document.getElementById(id).addEventListener("click", (event) => {
        event.currentTarget.blur(); // the space key would press a focused button again
        act();
      });
    }
  }
}
