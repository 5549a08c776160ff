// The worker of the page: loads the world, then plays it. Messages are described in local_connection.js.

import { World } from "./dream.js";
import { Files, readJson } from "./files.js";
import { readManifest } from "./manifest.js";
import { Player, toImage } from "./player.js";
import { hasGpu, loadRuntime, numThreads, openGraphs } from "./runtime.js";
import { readSafetensors } from "./safetensors.js";

const NUM_TIMED_STEPS = 3;
const COMFORTABLE = 0.8; // of the time that a frame may take
const SITE_VERSION = 1;

let player = null;

onmessage = async ({ data }) => {
  if (data.type === "open") await open(data).catch(fail);
  else if (player !== null) receive(data);
};

function receive(message) {
  if (message.type === "input") player.input = message;
  else if (message.type === "pause") player.pause(message.paused);
  else if (message.type === "step") player.singleStep();
  else if (message.type === "reset") player.change(() => player.reset(message));
  else if (message.type === "rewind") player.change(() => player.rewind());
}

// folder: URL of the site. start, seed: of the first dream, which are checked here. engine: "wasm" or "webgpu", or null
// for the faster one. threads: or null for as many as suit.
async function open({ folder, start, seed, engine, threads }) {
  const site = await readJson(new URL("site.json", folder));
  if (site.format_version > SITE_VERSION) throw new Error("The site is newer than its page: reload the page.");
  const files = new Files(folder, site.files, (loaded, total) => postMessage({ type: "progress", loaded, total }));
  const { manifest, starts, weights, runtime } = await load(site, files, engine, numThreads(threads));
  postMessage({ type: "progress", preparing: true });
  const opened = await openGraphs(runtime, weights).catch((error) => {
    throw new Error(`The world cannot be run in this browser (${error.message}): try another one.`);
  });
  const world = new World(manifest, readSafetensors(starts), opened);
  if (start >= world.numStarts) {
    postMessage({ type: "error", error: `There are ${world.numStarts} starts, numbered from 0: start ${start} is replaced by 0.` });
    start = 0;
  }
  player = new Player(world, (message, transfers) => postMessage(message, transfers));
  await player.begin({ start, seed });
  const used = await chooseRuntime(site, files, weights, world, runtime, engine);
  player.dream.rewind(Infinity); // the timed steps
  postMessage({ type: "hello", ...(await description(site, world)), engine: used });
  player.resume();
  files.forgetOthers();
  await player.run();
}

async function load(site, files, engine, threads) {
  const { manifest: manifestName, starts, dynamics, decoder } = site.world;
  const kind = engine === "webgpu" && (await hasGpu()) ? "webgpu" : "wasm";
  const names = [manifestName, starts, dynamics, decoder];
  files.expect([...names, site.runtime[kind].binary]);
  const [runtime, ...contents] = await Promise.all([
    loadRuntime(site, files, kind, threads),
    ...names.map((name) => files.read(name)),
  ]);
  const weights = { dynamics: contents[2], decoder: contents[3] };
  return { manifest: readManifest(contents[0]), starts: contents[1], weights, runtime };
}

// Stays with the processor if it keeps up with the world; if not, and there is a GPU, takes the faster of the two.
async function chooseRuntime(site, files, weights, world, runtime, engine) {
  const used = { kind: runtime.kind, threads: runtime.threads };
  const time = await timeStep(world);
  if (engine !== null || time < (COMFORTABLE * 1000) / world.manifest.fps || !(await hasGpu())) return used;
  const onProcessor = world.graphs;
  try {
    files.expect([site.runtime.webgpu.binary]);
    const other = await loadRuntime(site, files, "webgpu", runtime.threads);
    world.graphs = await openGraphs(other, weights);
    if ((await timeStep(world)) < time) return { kind: "webgpu", threads: other.threads };
  } catch (error) {
    console.warn(`WebGPU cannot be used: ${error.message}`);
  }
  world.graphs = onProcessor;
  return used;
}

// Milliseconds of a step of the player's dream, which is rewound afterwards.
async function timeStep(world) {
  await player.dream.step(null); // the first step prepares kernels
  const started = performance.now();
  for (let i = 0; i < NUM_TIMED_STEPS; i++) await player.dream.step(null);
  return (performance.now() - started) / NUM_TIMED_STEPS;
}

async function description(site, world) {
  const { name, fps, frame_size, actions } = world.manifest;
  const thumbnails = [];
  for (let start = 0; start < world.numStarts; start++) thumbnails.push(toImage(await world.preview(start), frame_size));
  return { model: name, fps, frame_size, num_starts: world.numStarts, can_rewind: true, thumbnails, actions: { ...actions, keys: site.keys } };
}

function fail(error) {
  console.warn(error);
  postMessage({ type: "error", error: error.message, final: true });
}
