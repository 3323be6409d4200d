// Writes archives as @ipld/car makes them, of files as ipfs-unixfs-importer cuts them, for the tests of this crate:
//
//   npm install && npm run make-cars
//
// The bytes of a file are those of make.mjs, or as many zeros if its seed is null.

import { CarReader, CarWriter } from '@ipld/car'
import * as dagPb from '@ipld/dag-pb'
import { MemoryBlockstore } from 'blockstore-core/memory'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { CID } from 'multiformats/cid'
import { identity } from 'multiformats/hashes/identity'

function bytes (seed, size) {
  const bytes = new Uint8Array(size)
  if (seed === null) return bytes
  let state = seed >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

async function archive (roots, blocks) {
  const { writer, out } = CarWriter.create(roots)
  const parts = []
  const collecting = (async () => { for await (const part of out) parts.push(part) })()
  for (const block of blocks) await writer.put(block)
  await writer.close()
  await collecting
  const whole = Buffer.concat(parts)
  await CarReader.fromBytes(whole)
  return whole.toString('hex')
}

// Keeps the blocks of an import in the order in which they come, children before parents.
async function build (profile, files) {
  const store = new MemoryBlockstore()
  const inOrder = []
  const recording = {
    get: (cid) => store.get(cid),
    put: (cid, bytes) => { inOrder.push({ cid, bytes }); return store.put(cid, bytes) }
  }
  const source = files.map(({ path, seed, size }) => ({ path, content: bytes(seed, size) }))
  const options = {
    profile, chunker: fixedSize({ chunkSize: 16 }), layout: balanced({ maxChildrenPerNode: 3 }), wrapWithDirectory: true
  }
  let root
  for await (const entry of importer(source, recording, options)) root = entry.cid
  const get = async (cid) => {
    const parts = []
    for await (const part of store.get(cid)) parts.push(part)
    return Buffer.concat(parts)
  }
  return { root, inOrder, get }
}

async function depthFirst (root, get, dups) {
  const blocks = []
  const seen = new Set()
  const visit = async (cid) => {
    if (!dups && seen.has(cid.toString())) return
    seen.add(cid.toString())
    const bytes = await get(cid)
    blocks.push({ cid, bytes })
    if (cid.code !== dagPb.code) return
    for (const link of dagPb.decode(bytes).Links) await visit(link.Hash)
  }
  await visit(root)
  return blocks
}

const files = [
  { path: 'a/b/deep', seed: 1, size: 100 }, { path: 'a/again', seed: 1, size: 16 }, { path: 'empty', seed: 2, size: 0 },
  { path: 'one', seed: 1, size: 16 }, { path: 'Ünïcode ☃', seed: 3, size: 33 }, { path: 'zeros', seed: null, size: 170 }
]
const out = { trees: [], orders: [], headers: [] }
for (const profile of ['unixfs-v1-2025', 'unixfs-v0-2015']) {
  const { root, inOrder, get } = await build(profile, files)
  for (const dups of [false, true]) {
    const blocks = await depthFirst(root, get, dups)
    const row = { profile, chunk_size: 16, links_max: 3, files, has_dups: dups, root: root.toString(), blocks: blocks.length }
    out.trees.push({ ...row, car: await archive([root], blocks) })
  }
  const identityBlock = { cid: CID.createV1(0x55, identity.digest(bytes(9, 5))), bytes: bytes(9, 5) }
  const blocks = [...inOrder, identityBlock]
  out.orders.push({ root: root.toString(), blocks: inOrder.length, car: await archive([root], blocks) })
}
const v1 = CID.parse(out.trees[0].root)
const v0 = CID.parse(out.trees[2].root)
const cbor = CID.createV1(0x71, v1.multihash)
for (const [roots, foreign] of [
  [[], 0], [[v1], 0], [[v0, v1], 0], [[CID.parse('bafkqaaa')], 1], [[cbor, v1], 1], [Array(30).fill(v1), 0]
]) {
  const known = roots.filter((root) => [0x55, 0x70].includes(root.code) && root.multihash.code === 0x12)
  out.headers.push({ roots: known.map(String), foreign, car: await archive(roots, []) })
}
const lists = Object.entries(out).map(([name, rows]) =>
  `  "${name}": [\n${rows.map((row) => `    ${JSON.stringify(row)}`).join(',\n')}\n  ]`)
console.log(`{\n${lists.join(',\n')}\n}`)
