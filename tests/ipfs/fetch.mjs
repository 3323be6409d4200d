// Asks a gateway of the real binary as IPFS clients do, and compares every byte:
//
//   node fetch.mjs GATEWAY TREE MANY    where TREE and MANY are directories that are there under both profiles, MANY with
//                                       so many files that it is in shards
//
// Helia alone is configured: nothing outside loopback is asked. Prints what was compared as JSON.

import { ok, deepEqual, equal, rejects } from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join, relative } from 'node:path'
import { fallbackRouter } from '@helia/fallback-router'
import { trustlessGatewayBlockBroker } from '@helia/trustless-gateway-client'
import { createVerifiedFetchWithHelia } from '@helia/verified-fetch'
import { CarBlockIterator, CarReader } from '@ipld/car'
import { BlackHoleBlockstore } from 'blockstore-core/black-hole'
import { createHeliaLight } from 'helia'
import { importer } from 'ipfs-unixfs-importer'

const [gateway, tree, many] = process.argv.slice(2)
const CAR = 'application/vnd.ipld.car'
const compared = []

async function files (tree) {
  const entries = await readdir(tree, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  const read = async (path) => ({ path: relative(tree, path), content: new Uint8Array(await readFile(path)) })
  return Promise.all(paths.map(read))
}

async function cidsOf (profile, source) {
  const cids = {}
  for await (const { path, cid } of importer(source, new BlackHoleBlockstore(), { profile, wrapWithDirectory: true })) {
    cids[path ?? ''] = cid
  }
  return cids
}

const clients = []
async function client (gateways) {
  // Helia asks fallbacks only after others, and waits for ever if there are none.
  const router = Object.assign(fallbackRouter({ gateways, shuffle: false }), { capabilities: () => [] })
  const broker = trustlessGatewayBlockBroker({ allowInsecure: true, allowLocal: true })
  const helia = await createHeliaLight({ blockBrokers: [broker], routers: [router] }).start()
  const verifiedFetch = await createVerifiedFetchWithHelia(helia)
  clients.push(verifiedFetch)
  return (path, init) => verifiedFetch(`ipfs://${path}`, { signal: AbortSignal.timeout(60_000), ...init })
}

async function bodyOf (response, statuses = [200]) {
  ok(statuses.includes(response.status), `${response.status} ${await response.clone().text().catch(() => '')}`)
  return new Uint8Array(await response.arrayBuffer())
}

// Every block of an archive, its hash checked here: the reader of @ipld/car does not.
async function blocksOf (car) {
  const blocks = new Map()
  for await (const { cid, bytes } of await CarBlockIterator.fromBytes(car)) {
    deepEqual(Buffer.from(cid.multihash.digest), createHash('sha256').update(bytes).digest())
    blocks.set(cid.toString(), bytes)
  }
  return blocks
}

function same (name, found, expected) {
  equal(found.length, expected.length, name)
  ok(Buffer.from(found).equals(Buffer.from(expected)), `${name}: other bytes`)
  compared.push(name)
}

// ---- what helia and verified-fetch get ----

const source = await files(tree)
for (const profile of ['unixfs-v1-2025', 'unixfs-v0-2015']) {
  const cids = await cidsOf(profile, source)
  const root = cids['']
  const get = await client([gateway])
  for (const { path, content } of source) {
    const encoded = path.split('/').map(encodeURIComponent).join('/')
    same(`${profile} ${path} by path`, await bodyOf(await get(`${root}/${encoded}`)), content)
    same(`${profile} ${path} by CID`, await bodyOf(await get(`${cids[path]}`)), content)
    if (content.length > 20) {
      const end = content.length - 7
      const range = { headers: { Range: `bytes=13-${end}` } }
      const body = await bodyOf(await (await client([gateway]))(`${root}/${encoded}`, range), [206])
      same(`${profile} ${path} in a range`, body, content.subarray(13, end + 1))
    }
  }
  const names = new Set(source.map(({ path }) => path.split('/')[0]))
  const raw = await bodyOf(await get(`${root}`, { headers: { Accept: 'application/vnd.ipld.raw' } }))
  deepEqual(Buffer.from(root.multihash.digest), createHash('sha256').update(raw).digest())
  compared.push(`${profile} directory block of ${names.size} names`)

  // ---- archives: what helia makes of the blocks and what the gateway sends at once ----

  const archive = async (path, query = '') => {
    const response = await fetch(`${gateway}/ipfs/${path}?format=car${query}`, { headers: { Accept: CAR } })
    const body = await bodyOf(response)
    equal(response.headers.get('content-type'), `${CAR}; version=1; order=dfs; dups=n`)
    equal(response.headers.get('accept-ranges'), 'none')
    return body
  }
  const whole = await archive(root)
  deepEqual((await (await CarReader.fromBytes(whole)).getRoots()).map(String), [String(root)])
  const blocks = await blocksOf(whole)
  ok(Object.values(cids).every((cid) => blocks.has(cid.toString())), 'an archive of the root names everything')
  const order = [...blocks.keys()]
  const accept = { headers: { Accept: `${CAR}; version=1; order=dfs; dups=n` } }
  const made = await bodyOf(await get(`${root}`, accept))
  deepEqual([...(await blocksOf(made)).keys()], order)
  compared.push(`${profile} archive of ${order.length} blocks, in the order in which helia makes it`)

  const large = source.reduce((left, right) => left.content.length > right.content.length ? left : right)
  const encoded = large.path.split('/').map(encodeURIComponent).join('/')
  const part = await blocksOf(await archive(`${root}/${encoded}`, '&entity-bytes=10:20'))
  const entity = await blocksOf(await archive(`${root}/${encoded}`, '&dag-scope=entity'))
  const block = await blocksOf(await archive(`${root}/${encoded}`, '&dag-scope=block'))
  ok(block.size <= part.size && part.size < entity.size && entity.size < order.length)
  for (const scope of [part, entity, block]) {
    equal([...scope.keys()][0], root.toString(), 'the path comes first')
    ok(scope.has(cids[large.path].toString()))
  }
  compared.push(`${profile} archives by scope`)
}

// ---- a directory in shards ----

const entries = await files(many)
for (const profile of ['unixfs-v1-2025', 'unixfs-v0-2015']) {
  const cids = await cidsOf(profile, entries)
  const root = cids['']
  const get = await client([gateway])
  for (const { path, content } of entries.filter((_, index) => index % 500 === 0)) {
    same(`${profile} ${path} out of a shard`, await bodyOf(await get(`${root}/${path}`)), content)
  }
  const accept = { headers: { Accept: `${CAR}; version=1; order=dfs; dups=n` } }
  const made = [...(await blocksOf(await bodyOf(await get(`${root}`, accept)))).keys()]
  const sent = await bodyOf(await fetch(`${gateway}/ipfs/${root}?format=car`))
  deepEqual([...(await blocksOf(sent)).keys()], made)
  ok(made.length > entries.length + 1, 'there are shards')
  const way = await bodyOf(await fetch(`${gateway}/ipfs/${root}/${entries[0].path}?format=car&dag-scope=block`))
  ok((await blocksOf(way)).size < 6, 'a path takes the shards on its way')
  const { entries: listed } = await (await fetch(`${gateway}/ipfs/${root}`)).json()
  deepEqual(listed.map(({ name, cid }) => [name, cid]), entries.map(({ path }) => [path, `${cids[path]}`]).sort())
  compared.push(`${profile} directory of ${entries.length} entries in ${made.length - entries.length} shards or more`)
}

// ---- probes ----

for (const method of ['GET', 'HEAD']) {
  for (const format of ['raw', 'car']) {
    const response = await fetch(`${gateway}/ipfs/bafkqaaa?format=${format}`, { method })
    equal(response.status, 200)
    if (method === 'GET' && format === 'car') {
      const reader = await CarReader.fromBytes(new Uint8Array(await response.arrayBuffer()))
      deepEqual((await reader.getRoots()).map(String), ['bafkqaaa'])
    }
  }
}
compared.push('probes')

// ---- a peer that lies ----

let lies = 0
const liar = createServer(async (request, response) => {
  const answer = await fetch(`${gateway}${request.url}`, { headers: { Accept: request.headers.accept ?? '*/*' } })
  const body = Buffer.from(await answer.arrayBuffer())
  if (body.length > 0) body[body.length >> 1] ^= 1
  lies++
  response.writeHead(answer.status, { 'Content-Type': answer.headers.get('content-type') })
  response.end(body)
})
await new Promise((resolve) => liar.listen(0, '127.0.0.1', resolve))
const lying = `http://127.0.0.1:${liar.address().port}`
const { path, content } = source.find(({ content }) => content.length > 0)
const cid = (await cidsOf('unixfs-v1-2025', source))[path]
const alone = await client([lying])
await rejects(async () => bodyOf(await alone(`${cid}`, { signal: AbortSignal.timeout(5_000) })))
ok(lies > 0, 'the liar was asked')
const both = await client([lying, gateway])
same('a file from a liar and an honest gateway', await bodyOf(await both(`${cid}`)), content)
liar.closeAllConnections()
liar.close()

await Promise.all(clients.map((client) => client.stop()))
console.log(JSON.stringify({ compared }))
process.exit(0)
