// The loop between a hand and a dream: what the devices say goes out, frames come in.

import { Connection } from "./connection.js";
import { followPointer, Gamepads, Keyboard, sumAxes, TouchPad } from "./hands.js";
import { View } from "./view.js";

const MIN_MS_BETWEEN_HANDS = 20;
const PAUSED = "Paused";
const UNPLUGGED = "Gamepad unplugged: plug it in, then go on";
const byId = (id) => document.getElementById(id);

class Game {
  constructor() {
    this.view = new View();
    this.connection = null;
    this.world = null;
    this.start = 0;
    this.paused = this.recording = false;
    this.pausedBecause = PAUSED;
    this.pointer = null;
    this.pads = [];
    this.sentHand = "";
    this.sentAt = 0;
    const buttons = { 0: () => this.pause(), 2: () => this.reset(), 3: () => this.step() };
    this.gamepads = new Gamepads((button) => buttons[button]?.());
    this.view.enable(false);
    this.#listen();
    this.connect();
    requestAnimationFrame(() => this.#tick());
  }

  connect() {
    this.view.state("Connecting …");
    const connection = (this.connection = new Connection());
    let farewell = "The connection is lost";
    connection.addEventListener("hello", ({ detail }) => this.#begin(detail));
    connection.addEventListener("frame", ({ detail }) => this.#frame(detail));
    connection.addEventListener("said", ({ detail }) => {
      if (detail.final) farewell = detail.error;
      else this.#hear(detail);
    });
    connection.addEventListener("closed", () => {
      this.world = null;
      this.recording = false;
      this.view.recording(false, null);
      this.view.enable(false);
      this.view.state(farewell, true);
    });
  }

  pause(paused = !this.paused, because = PAUSED) {
    this.pausedBecause = because;
    this.connection.send({ type: "pause", paused });
  }

  step() {
    this.pausedBecause = PAUSED;
    this.connection.send({ type: "step" });
  }

  reset() {
    if (this.world) this.connection.send({ type: "reset", start: (this.start + 1) % this.world.num_starts });
  }

  record() {
    this.connection.send({ type: "record", on: !this.recording });
  }

  #begin(world) {
    this.world = world;
    this.paused = false;
    this.keyboard = new Keyboard(world.actions.keys, 1100 / world.fps, () => this.#hand());
    this.view.show(world);
    this.view.paused(false);
    this.view.enable(true);
    this.view.state(null);
    const names = world.actions.names.slice(0, 4);
    byId("pads").replaceChildren();
    this.pads = [names.slice(0, 2), names.slice(2, 4)]
      .filter((labels) => labels.length > 0)
      .map((labels) => new TouchPad(byId("pads"), labels, () => this.#hand()));
  }

  #frame({ header, picture }) {
    this.start = header.start;
    this.view.draw(header, picture);
    if (performance.now() - this.sentAt >= MIN_MS_BETWEEN_HANDS) this.#sendHand();  // to measure the latency
  }

  #hear(message) {
    if (message.type === "paused") {
      this.paused = message.paused;
      this.view.paused(this.paused);
      this.view.state(this.paused ? this.pausedBecause : null);
      this.connection.forgetTimes();
    } else if (message.type === "recording") {
      this.recording = message.on;
      this.view.recording(message.on, message.url);
      if (!message.on && !message.url) this.view.notice("Nothing was dreamt while recording: there is no film.");
    } else if (message.type === "error") {
      this.view.notice(message.error);
    }
  }

  #axes() {
    const size = this.world.actions.names.length;
    const pads = this.pads.flatMap((pad) => pad.place);
    if (this.pointer !== null) return { axes: sumAxes(size, this.pointer), pointer: true };
    return { axes: sumAxes(size, this.keyboard.axes(), this.gamepads.poll(), pads), pointer: false };
  }

  // Sends a hand that has changed, at once; the next frame's answer to it measures the latency.
  #hand() {
    if (!this.world) return;
    const hand = this.#axes();
    if (JSON.stringify(hand) === this.sentHand) return;
    const wait = this.sentAt + MIN_MS_BETWEEN_HANDS - performance.now();
    clearTimeout(this.later);
    if (wait > 0) this.later = setTimeout(() => this.#hand(), wait);
    else this.#sendHand();
  }

  #sendHand() {
    if (!this.world) return;
    const hand = this.#axes();
    this.sentHand = JSON.stringify(hand);
    this.sentAt = performance.now();
    this.connection.sendHand(hand.axes, hand.pointer);
  }

  // On every frame of the screen: gamepads are asked, not heard; figures are renewed.
  #tick() {
    requestAnimationFrame(() => this.#tick());
    if (!this.world) return;
    this.#hand();
    this.view.figures(this.paused ? null : this.connection.rate, this.connection.latency);
  }

  #listen() {
    const commands = { " ": () => this.pause(), Enter: () => this.step(), r: () => this.reset() };
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.world) return;
      const command = commands[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (command === undefined && !this.keyboard.down(event.key)) return;
      event.preventDefault();  // else the page would scroll
      if (!event.repeat) command?.();
    });
    addEventListener("keyup", (event) => this.keyboard?.up(event.key));
    addEventListener("blur", () => this.keyboard?.release());  // the page hears no more of keys let go elsewhere
    addEventListener("gamepaddisconnected", () => this.world && this.pause(true, UNPLUGGED));
    document.addEventListener("visibilitychange", () => document.hidden && this.world && !this.paused && this.pause(true));
    followPointer(byId("picture"), (place) => {
      this.pointer = place;
      this.#hand();
    });
    for (const [id, act] of Object.entries({
      pause: () => this.pause(),
      step: () => this.step(),
      reset: () => this.reset(),
      record: () => this.record(),
      again: () => this.connect(),
    })) {
      byId(id).addEventListener("click", (event) => {
        event.currentTarget.blur();  // else the space key would press it again
        act();
      });
    }
  }
}

new Game();
