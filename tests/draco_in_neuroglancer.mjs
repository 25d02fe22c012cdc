// Decodes mesh fragments with the WebAssembly decoder of Neuroglancer's bundled client.
//
// node draco_in_neuroglancer.mjs DECODER.wasm BITS FILE:PARTED...
// Prints for each file the decoder's code, indices, positions and offsets of the octants.
import fs from "fs";

const [decoder, bits, ...files] = process.argv.slice(2);
let instance;
let parts;
let found;
const env = {
  emscripten_notify_memory_growth() {},
  neuroglancer_draco_receive_decoded_mesh(faces, vertices, indices, positions, offsets) {
    const memory = instance.exports.memory.buffer;
    found = {
      indices: Array.from(new Uint32Array(memory, indices, 3 * faces)),
      positions: Array.from(new Uint32Array(memory, positions, 3 * vertices)),
      offsets: Array.from(new Uint32Array(memory, offsets, parts + 1)),
    };
  },
  proc_exit(code) {
    throw new Error(`exit ${code}`);
  },
};
const bytes = fs.readFileSync(decoder);
instance = (await WebAssembly.instantiate(bytes, { env, wasi_snapshot_preview1: env })).instance;
instance.exports._initialize();
const answers = files.map((file) => {
  const at = file.lastIndexOf(":");
  const isParted = file.slice(at + 1) === "1";
  const data = fs.readFileSync(file.slice(0, at));
  const start = instance.exports.malloc(data.length);
  new Uint8Array(instance.exports.memory.buffer).set(data, start);
  parts = isParted ? 8 : 1;
  found = {};
  const code = instance.exports.neuroglancer_draco_decode(
    start, data.length, isParted, Number(bits), true);
  return { code, ...found };
});
process.stdout.write(JSON.stringify(answers));
