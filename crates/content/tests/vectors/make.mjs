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

const out = { texts: [], files: [], small: [], trees: [], wide: [], fanouts: [] }
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

  // "entry-000000", … all of the one byte of seed 1: the largest directory that is not sharded, and larger ones.
  const entries = (count, name) => Array.from({ length: count }, (_, i) => ({
    path: name(String(i).padStart(6, '0')), content: bytes(1, 1)
  }))
  const wide = async (names, count, options, name) => {
    const { cid, dag_size, type } = await last(entries(count, name), { profile, wrapWithDirectory: true, ...options })
    out.wide.push({ profile, ...names, count, is_sharded: type !== 'directory', cid, dag_size })
  }
  const most = profile === 'unixfs-v0-2015' ? 5698 : 4681
  for (const count of [most, most + 1, 20_000]) await wide({}, count, {}, (i) => `entry-${i}`)
  // Above another size.
  for (const count of [0, 1, 2, 3, 100, 256, 2000]) {
    await wide({ shards_above: 50 }, count, { shardSplitThresholdBytes: 50 }, (i) => `entry-${i}`)
  }
  // Directories in shards, one below the other.
  await wide({ below: 'a' }, 6000, {}, (i) => `a/entry-${i}`)
  await wide({ below: 'é/b', shards_above: 1000 }, 300, { shardSplitThresholdBytes: 1000 }, (i) => `é/b/entry-${i}`)
}

// Shards of other widths are read, not made: all blocks, root last.
for (const bits of [3, 4, 5, 7, 9, 10]) {
  const blocks = []
  const store = { put: (cid, bytes) => { blocks.push(Buffer.from(bytes).toString('hex')); return cid } }
  const names = Array.from({ length: 100 }, (_, i) => `entry ☃ ${i}`)
  const options = { profile: 'unixfs-v1-2025', wrapWithDirectory: true, shardSplitThresholdBytes: 0, shardFanoutBits: bits }
  const source = names.map((path) => ({ path, content: bytes(1, 1) }))
  let root
  for await (const { cid } of importer(source, store, options)) root = cid.toString()
  out.fanouts.push({ fanout: 2 ** bits, names, root, blocks: [...new Set(blocks)] })
}
const lists = Object.entries(out).map(([name, rows]) =>
  `  "${name}": [\n${rows.map((row) => `    ${JSON.stringify(row)}`).join(',\n')}\n  ]`)
console.log(`{\n${lists.join(',\n')}\n}`)
