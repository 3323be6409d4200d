//! What finalized blocks did, on disk.
//!
//! State only tells how things are; this keeps how they came about: for every block its receipts,
//! its events and the objects that left the state with it, and for every transaction and every such
//! object the block that has it. A block's record is durable
//! before the block is acknowledged to consensus, and consensus delivers a block again if it was
//! not acknowledged before a crash, so that the record has no gaps. One task owns the files; the
//! newest records are also kept in memory.

use crate::block::Digest;
use borsh::{BorshDeserialize, BorshSerialize};
use commonware_codec::{Buf, EncodeSize, Error as CodecError, RangeCfg, Read, Write};
use commonware_cryptography::sha256;
use commonware_runtime::{Clock, Metrics, Spawner, Storage, buffer::paged::CacheRef};
use commonware_storage::{
    archive::{Archive as _, Error, Identifier, MultiArchive as _, prunable},
    translator::EightCap,
};
use commonware_utils::{NZU64, NZUsize};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// Records kept in memory.
const RECENT_MAX: usize = 256;
/// Bytes of a record on disk.
const RECORD_BYTES_MAX: usize = 1 << 30;
const REQUESTS_MAX: usize = 1024;

/// What a finalized block did.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockRecord {
    /// Height of the block.
    pub height: u64,
    /// Digest of the block's header.
    pub digest: [u8; 32],
    /// Time of the block.
    pub time_ms: u64,
    /// Identities of its transactions.
    pub tx_ids: Vec<[u8; 32]>,
    /// One encoded receipt for each transaction.
    pub receipts: Vec<Vec<u8>>,
    /// The encoded events of the block.
    pub events: Vec<Vec<u8>>,
    /// Objects that left the state, by their ids.
    pub archived: Vec<([u8; 32], Vec<u8>)>,
}

/// The receipt of a finalized transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxReceipt {
    /// The transaction.
    pub id: [u8; 32],
    /// Height of the block that has it.
    pub height: u64,
    /// Its position in the block.
    pub index: u32,
    /// Time of the block.
    pub time_ms: u64,
    /// The encoded receipt.
    pub receipt: Vec<u8>,
}

impl BlockRecord {
    /// The receipt of transaction `index`.
    pub fn tx_receipt(&self, index: usize) -> Option<TxReceipt> {
        Some(TxReceipt {
            id: *self.tx_ids.get(index)?,
            height: self.height,
            index: index as u32,
            time_ms: self.time_ms,
            receipt: self.receipts.get(index)?.clone(),
        })
    }

    pub(crate) fn tx_receipts(&self) -> Vec<TxReceipt> {
        (0..self.tx_ids.len()).filter_map(|index| self.tx_receipt(index)).collect()
    }
}

/// Bytes of a record as the archive stores them.
#[derive(Clone)]
struct Stored(Vec<u8>);

impl Write for Stored {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.0.write(buf);
    }
}

impl EncodeSize for Stored {
    fn encode_size(&self) -> usize {
        self.0.encode_size()
    }
}

impl Read for Stored {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let range = (RangeCfg::new(0..=RECORD_BYTES_MAX), ());
        Ok(Self(Vec::<u8>::read_cfg(buf, &range)?))
    }
}

type Records<E> = prunable::Archive<EightCap, E, Digest, Stored>;
/// From a transaction to the height of its block and its position there; from an object that left
/// the state likewise, its positions counted behind those of the transactions.
type Positions<E> = prunable::Archive<EightCap, E, Digest, (u64, u32)>;

enum Request {
    Append(Arc<BlockRecord>, oneshot::Sender<()>),
    Record(u64, oneshot::Sender<Option<Arc<BlockRecord>>>),
    Receipt([u8; 32], oneshot::Sender<Option<TxReceipt>>),
    Archived([u8; 32], oneshot::Sender<Option<Vec<u8>>>),
}

/// Access to the history.
#[derive(Clone)]
pub(crate) struct History {
    requests: mpsc::Sender<Request>,
    recent: Arc<RwLock<BTreeMap<u64, Arc<BlockRecord>>>>,
}

impl History {
    /// Opens the history and starts the task that owns it.
    pub(crate) async fn open<E>(context: E, prefix: &str, page_cache: CacheRef) -> Result<Self, Error>
    where
        E: Storage + Clock + Metrics + Spawner,
    {
        let records = Records::init(context.child("records"), archive(prefix, "records", page_cache.clone())).await?;
        let positions = Positions::init(context.child("positions"), archive(prefix, "positions", page_cache)).await?;
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let history = Self { requests: sender, recent: Arc::default() };
        let recent = history.recent.clone();
        context.spawn(|_| async move {
            if let Err(cause) = serve(records, positions, receiver, recent).await {
                // Without its history the node must not go on.
                error!(%cause, "the history failed");
                panic!("the history failed: {cause}");
            }
        });
        Ok(history)
    }

    /// Makes `record` durable; false if the node is stopping.
    pub(crate) async fn append(&self, record: Arc<BlockRecord>) -> bool {
        let (reply, done) = oneshot::channel();
        self.requests.send(Request::Append(record, reply)).await.is_ok() && done.await.is_ok()
    }

    /// The record at `height`, if it is finalized.
    pub(crate) async fn record(&self, height: u64) -> Result<Option<Arc<BlockRecord>>, Gone> {
        if let Some(record) = self.recent.read().get(&height) {
            return Ok(Some(record.clone()));
        }
        let (reply, answer) = oneshot::channel();
        let request = Request::Record(height, reply);
        self.requests.send(request).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// The receipt of the transaction, if it is finalized.
    pub(crate) async fn receipt(&self, id: &[u8; 32]) -> Result<Option<TxReceipt>, Gone> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Receipt(*id, reply);
        self.requests.send(request).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

impl History {
    /// An object that left the state, as it was then.
    pub(crate) async fn archived(&self, id: &[u8; 32]) -> Result<Option<Vec<u8>>, Gone> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Archived(*id, reply);
        self.requests.send(request).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

/// The node has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the node has stopped")]
pub(crate) struct Gone;

fn archive<C: Default>(prefix: &str, name: &str, page_cache: CacheRef) -> prunable::Config<EightCap, C> {
    prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{prefix}-{name}-meta"),
        key_partition: format!("{prefix}-{name}-key"),
        key_page_cache: page_cache,
        value_partition: format!("{prefix}-{name}-value"),
        compression: None,
        codec_config: C::default(),
        items_per_section: NZU64!(1 << 14),
        key_write_buffer: NZUsize!(64 << 10),
        value_write_buffer: NZUsize!(1 << 20),
        replay_buffer: NZUsize!(1 << 20),
    }
}

async fn serve<E>(
    mut records: Records<E>,
    mut positions: Positions<E>,
    mut requests: mpsc::Receiver<Request>,
    recent: Arc<RwLock<BTreeMap<u64, Arc<BlockRecord>>>>,
) -> Result<(), Error>
where
    E: Storage + Clock + Metrics,
{
    while let Some(request) = requests.recv().await {
        match request {
            Request::Append(record, reply) => {
                (records, positions) = append(records, positions, &record).await?;
                let mut recent = recent.write();
                recent.insert(record.height, record);
                while recent.len() > RECENT_MAX {
                    recent.pop_first();
                }
                let _ = reply.send(());
            }
            Request::Record(height, reply) => {
                let _ = reply.send(read(&records, height).await?.map(Arc::new));
            }
            Request::Receipt(id, reply) => {
                let found = find(&records, &positions, &id).await?;
                let _ = reply.send(found.and_then(|(record, position)| record.tx_receipt(position)));
            }
            Request::Archived(id, reply) => {
                let found = find(&records, &positions, &id).await?;
                let _ = reply.send(found.and_then(|(record, position)| {
                    let index = position.checked_sub(record.tx_ids.len())?;
                    Some(record.archived.get(index)?.1.clone())
                }));
            }
        }
    }
    Ok(())
}

async fn append<E>(
    mut records: Records<E>,
    mut positions: Positions<E>,
    record: &BlockRecord,
) -> Result<(Records<E>, Positions<E>), Error>
where
    E: Storage + Clock + Metrics,
{
    if records.has(Identifier::Index(record.height)).await? {
        return Ok((records, positions));
    }
    // Positions first: a record on disk implies that they are there. Writing one twice, after a
    // crash in between, does no harm.
    if !record.tx_ids.is_empty() || !record.archived.is_empty() {
        let ids = record.tx_ids.iter().chain(record.archived.iter().map(|(id, _)| id));
        for (position, id) in ids.enumerate() {
            let at = (record.height, position as u32);
            let id = sha256::Digest(*id);
            positions = positions.put_multi(record.height, id, &at).await?;
        }
        positions = positions.sync().await?;
    }
    let bytes = Stored(borsh::to_vec(record).expect("writing to memory cannot fail"));
    let digest = sha256::Digest(record.digest);
    records = records.put_sync(record.height, digest, &bytes).await?;
    Ok((records, positions))
}

async fn read<E>(records: &Records<E>, height: u64) -> Result<Option<BlockRecord>, Error>
where
    E: Storage + Clock + Metrics,
{
    match records.get(Identifier::Index(height)).await? {
        Some(Stored(bytes)) => borsh::from_slice(&bytes).map(Some).map_err(|_| Error::RecordCorrupted),
        None => Ok(None),
    }
}

/// The record that has something, and its position there.
async fn find<E>(
    records: &Records<E>,
    positions: &Positions<E>,
    id: &[u8; 32],
) -> Result<Option<(BlockRecord, usize)>, Error>
where
    E: Storage + Clock + Metrics,
{
    let key = sha256::Digest(*id);
    let Some((height, position)) = positions.get(Identifier::Key(&key)).await? else {
        return Ok(None);
    };
    // Without a record the block is not acknowledged yet.
    let record = read(records, height).await?;
    Ok(record.map(|record| (record, position as usize)))
}
