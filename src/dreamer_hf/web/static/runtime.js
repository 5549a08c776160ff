// ONNX Runtime in a worker: its module, its binary, and the graphs of a world.

const MAX_THREADS = 4;

// site: site.json. files: of the site. kind: "wasm" or "webgpu". Returns a runtime for `openGraphs`.
export async function loadRuntime(site, files, kind, threads) {
  const { module, binary } = site.runtime[kind];
  const [ort, wasmBinary] = await Promise.all([import(new URL(module, files.folder).href), files.read(binary)]);
  ort.env.wasm.wasmBinary = wasmBinary;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  return { ort, kind, threads };
}

// weights: {dynamics, decoder}, the bytes of each graph.
export async function openGraphs(runtime, weights) {
  const graphs = {};
  for (const [name, bytes] of Object.entries(weights)) {
    const options = { executionProviders: [runtime.kind], graphOptimizationLevel: "all" };
    graphs[name] = new Graph(runtime.ort, await runtime.ort.InferenceSession.create(bytes, options));
  }
  return graphs;
}

// Threads need memory that they share, which pages only have where they are isolated from other sites.
export function numThreads(wanted) {
  if (!self.crossOriginIsolated) return 1;
  return wanted ?? Math.max(1, Math.min(MAX_THREADS, Math.floor(navigator.hardwareConcurrency / 2)));
}

export async function hasGpu() {
  return (await navigator.gpu?.requestAdapter().catch(() => null)) != null;
}

class Graph {
  constructor(ort, session) {
    Object.assign(this, { ort, session });
  }

  // inputs: {name: [values, shape]}; those that the graph does not use are left out. outputs: names.
  async run(inputs, outputs) {
    const feeds = {};
    for (const name of this.session.inputNames) {
      const [values, shape] = inputs[name];
      feeds[name] = new this.ort.Tensor(typeOf(name, values), values, shape);
    }
    const results = await this.session.run(feeds, outputs);
    const entries = outputs.map((name) => [name, results[name].data]);
    return Object.fromEntries(entries);
  }

  release() {
    return this.session.release();
  }
}

function typeOf(name, values) {
  if (name === "action_mask") return "bool";
  return values instanceof BigInt64Array ? "int64" : "float32";
}
