// ONNX Runtime in a worker: its module, its binary, and the graphs of a world.

const MAX_THREADS = 4;

// kind: "wasm" or "webgpu". module: URL of the runtime. binary, weights: bytes of its WebAssembly and of each graph.
// Returns {dynamics, decoder, engine}; `engine` says what they run on.
export async function openGraphs(kind, threads, module, binary, weights) {
  try {
    const ort = await import(module);
    Object.assign(ort.env.wasm, { wasmBinary: binary, numThreads: threads });
    ort.env.logLevel = "error";
    const graphs = { engine: { kind, threads } };
    for (const [name, bytes] of Object.entries(weights)) {
      const session = await ort.InferenceSession.create(bytes, { executionProviders: [kind] });
      graphs[name] = new Graph(ort, session);
    }
    return graphs;
  } catch (error) {
    throw new Error(`The world cannot be run in this browser (${error.message}): try another browser.`);
  }
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
}

function typeOf(name, values) {
  if (name === "action_mask" || name === "state_mask") return "bool";
  return values instanceof BigInt64Array ? "int64" : "float32";
}
