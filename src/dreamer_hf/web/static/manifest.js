// The manifest of an exported world, dreamer_onnx.json.

const FORMAT = "dreamer-onnx";
const FORMAT_VERSION = 2;

// bytes: Uint8Array of the file. Returns the manifest, or throws an error of one sentence for the player.
export function readManifest(bytes) {
  const manifest = JSON.parse(new TextDecoder().decode(bytes));
  if (manifest.format !== FORMAT) throw new Error("This folder holds no exported world: export it again.");
  if (manifest.format_version > FORMAT_VERSION) {
    throw new Error(`The world was exported in format ${manifest.format_version} and this page reads up to ${FORMAT_VERSION}: export the whole site again.`);
  }
  if (manifest.starts === null) throw new Error("This world was exported without start frames: export it again with some.");
  return manifest;
}
