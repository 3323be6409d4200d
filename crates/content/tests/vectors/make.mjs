// Writes the CIDs that ipfs-unixfs-importer gives, for the tests of this crate:
//
//   npm install && npm run make
//
// The bytes of a file follow from its seed: state = state * 1664525 + 1013904223 mod 2^32, each byte the top eight bits.

import { BlackHoleBlockstore } from 'blockstore-core/black-hole'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'

const profiles = ['unixfs-v1-2025', 'unixfs-v0-2015']

function bytes (seed, size) {
  const bytes = new Uint8Array(size)
  let state = seed >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

async function last (source, options) {
  let result
  for await (const entry of importer(source, new BlackHoleBlockstore(), options)) result = entry
  return { cid: result.cid.toString(), dag_size: Number(result.size), type: result.unixfs?.type ?? 'raw' }
}

const fileOf = async (content, options) => {
  const { cid, dag_size } = await last([{ content }], options)
  return { cid, dag_size }
}

const KIB = 1024
const MIB = 1024 * KIB
const sizes = [
  0, 1, 5, 255, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 512 * KIB, MIB - 1, MIB, MIB + 1, 3 * MIB + 17,
  174 * 256 * KIB, 174 * 256 * KIB + 1
]
const smallSizes = [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 143, 144, 145, 160, 432, 433, 1296, 1297, 1312, 5000]
const tree = [
  ['readme.txt', 12], ['a/b/c/deep', 300_000], ['a/b/other', 0], ['a/z', 1], ['a.b', 2], ['a-b', 3], ['Ünïcode ☃', 4],
  ['weights/0', 1_100_000], ['weights/10', 5], ['weights/2', 6], ['Z', 7]
]

const out = { texts: [], files: [], small: [], trees: [], wide: [] }
for (const profile of profiles) {
  for (const text of ['', 'test\n', 'hello world']) {
    out.texts.push({ profile, text, ...await fileOf(new TextEncoder().encode(text), { profile }) })
  }
  for (const size of sizes) {
    out.files.push({ profile, seed: size, size, ...await fileOf(bytes(size, size), { profile }) })
  }
  for (const size of smallSizes) {
    const options = {
      profile, chunker: fixedSize({ chunkSize: 16 }), layout: balanced({ maxChildrenPerNode: 3 })
    }
    out.small.push({ profile, chunk_size: 16, links_max: 3, seed: size, size, ...await fileOf(bytes(size, size), options) })
  }
  const files = tree.map(([path, size], seed) => ({ path, seed, size }))
  const source = files.map(({ path, seed, size }) => ({ path, content: bytes(seed, size) }))
  const { cid, dag_size } = await last(source, { profile, wrapWithDirectory: true })
  out.trees.push({ profile, files, cid, dag_size })
  const empty = await last([{ path: 'empty' }], { profile })
  out.trees.push({ profile, files: [], cid: empty.cid, dag_size: empty.dag_size })

  // The largest directory that is not sharded, and the next one: "entry-000000", … all of the one byte of seed 1.
  const most = profile === 'unixfs-v0-2015' ? 5698 : 4681
  for (const count of [most, most + 1]) {
    const source = Array.from({ length: count }, (_, i) => ({
      path: `entry-${String(i).padStart(6, '0')}`, content: bytes(1, 1)
    }))
    const { cid, dag_size, type } = await last(source, { profile, wrapWithDirectory: true })
    out.wide.push({ profile, count, is_sharded: type !== 'directory', cid, dag_size })
  }
}
const lists = Object.entries(out).map(([name, rows]) =>
  `  "${name}": [\n${rows.map((row) => `    ${JSON.stringify(row)}`).join(',\n')}\n  ]`)
console.log(`{\n${lists.join(',\n')}\n}`)
