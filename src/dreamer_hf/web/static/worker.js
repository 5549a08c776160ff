// The worker of the page: loads the world, then plays it. Messages are described in local_connection.js.

import { Player, toImage } from "./player.js";
import { hasGpu, numThreads } from "./runtime.js";
import { Site } from "./site.js";

const NUM_TIMED_STEPS = 3;
const COMFORTABLE = 0.8; // of the time that a frame may take

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

// folder: URL of the site. start, seed: of the first dream. engine: "wasm" or "webgpu", or null for the faster one.
// threads: or null for as many as suit.
async function open({ folder, start, seed, engine, threads }) {
  const site = await Site.open(folder, (loaded, total) => postMessage({ type: "progress", loaded, total }));
  const kind = engine === "webgpu" && (await hasGpu()) ? "webgpu" : "wasm";
  const world = await site.loadWorld(kind, numThreads(threads), () => postMessage({ type: "progress", preparing: true }));
  if (start >= world.numStarts) {
    postMessage({ type: "error", error: `There are ${world.numStarts} starts, numbered from 0: start ${start} is replaced by 0.` });
    start = 0;
  }
  player = new Player(world, (message, transfers) => postMessage(message, transfers));
  await player.begin({ start, seed });
  if (engine === null) await chooseRuntime(site, world);
  player.dream.rewind(Infinity); // the timed steps
  postMessage({ type: "hello", ...(await description(site, world)) });
  player.resume();
  site.files.forgetOthers();
  await player.run();
}

// Stays with the processor if it keeps up with the world; if not, and there is a GPU, takes the faster of the two.
async function chooseRuntime(site, world) {
  const time = await timeStep();
  if (time < (COMFORTABLE * 1000) / world.fps || !(await hasGpu())) return;
  const onProcessor = world.graphs;
  try {
    world.graphs = await site.openGraphs("webgpu", 1);
    if ((await timeStep()) < time) return;
  } catch (error) {
    console.warn(`WebGPU cannot be used: ${error.message}`);
  }
  world.graphs = onProcessor;
}

// Milliseconds of a step of the player's dream, which is rewound afterwards.
async function timeStep() {
  await player.dream.step(null); // the first step prepares kernels
  const started = performance.now();
  for (let i = 0; i < NUM_TIMED_STEPS; i++) await player.dream.step(null);
  return (performance.now() - started) / NUM_TIMED_STEPS;
}

async function description(site, world) {
  const { name, frame_size: [height, width], cameras, state } = world.manifest;
  const { range_low: low, range_high: high, ...actions } = world.manifest.actions;
  const thumbnails = [];
  for (let start = 0; start < world.numStarts; start++) {
    const firstCamera = (await world.preview(start)).subarray(0, 3 * height * width);
    thumbnails.push(toImage(firstCamera, [height, width]));
  }
  const frame_size = [height, world.numCameras * width];
  return {
    ...{ model: name, fps: world.fps, frame_size, num_starts: world.numStarts, can_rewind: true, thumbnails },
    ...{ cameras: cameras ?? null, state: state ?? null },
    ...{ actions: { ...actions, low, high, keys: site.keys }, engine: world.graphs.engine },
  };
}

function fail(error) {
  console.warn(error);
  postMessage({ type: "error", error: error.message, final: true });
}
