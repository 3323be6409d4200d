//! Blocks and their headers.
//!
//! The digest of a block is the digest of its header, and the header commits to everything else:
//! the transactions, the state they lead to, their receipts and events. A chain of headers with
//! one certificate at its end is therefore all that a client needs to check any fact about the
//! ledger. A [`Block`] cannot be decoded unless its transactions match its header.

use crate::{
    keys::{PublicKey, key_bytes, key_from_bytes},
    merkle,
};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error as CodecError, RangeCfg, Read, Write};
use commonware_consensus::{
    Block as ConsensusBlock, BoundedBlock, CertifiableBlock, Heightable,
    simplex::types::Context,
    types::{Epoch, Height, Round, View},
};
use commonware_cryptography::{Digestible, Hasher as _, Sha256, sha256};
use std::sync::Arc;

/// Bytes of all transactions of a block together.
pub const MAX_BLOCK_BYTES: usize = 2 << 20;
/// Bytes of one transaction.
pub const MAX_TX_BYTES: usize = 128 << 10;
/// Transactions in a block.
pub const MAX_BLOCK_TXS: usize = 16 << 10;
/// Bytes set aside in a header for handing the threshold key to new coordinators.
pub const MAX_RESERVED_BYTES: usize = 64 << 10;
/// Bytes of a header without its reserved bytes; ample.
const MAX_HEADER_BYTES: usize = 4 << 10;

/// Identity of a block: the digest of its header.
pub type Digest = sha256::Digest;

/// Where consensus placed a block: its view, its leader and its parent.
pub(crate) type ConsensusContext = Context<Digest, PublicKey>;

/// The header of a block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// Identity of the chain.
    pub chain_id: [u8; 32],
    /// Distance from the genesis block.
    pub height: u64,
    /// Milliseconds since the Unix epoch; strictly increasing along the chain.
    pub time_ms: u64,
    /// Consensus epoch; zero until coordinators can change.
    pub epoch: u64,
    /// Consensus view in which the block was proposed.
    pub view: u64,
    /// Public key of the coordinator that proposed it.
    pub leader: [u8; 32],
    /// View of the parent.
    pub parent_view: u64,
    /// Digest of the parent's header.
    pub parent: [u8; 32],
    /// The threshold signature over the parent's view, from the parent's certificate. Anyone can
    /// check it against the network's public key. All zero if the parent is the genesis block.
    pub seed_signature: [u8; 48],
    /// Root of the state after this block: proves what value a key has, or that it has none.
    pub state_root: [u8; 32],
    /// Root of the log of state operations, for downloading the state.
    pub ops_root: [u8; 32],
    /// First operation of the log that the state depends on.
    pub ops_start: u64,
    /// End of the log.
    pub ops_end: u64,
    /// Merkle root over the encoded transactions.
    pub tx_root: [u8; 32],
    /// Merkle root over the encoded receipts, one for each transaction.
    pub receipts_root: [u8; 32],
    /// Merkle root over the encoded events.
    pub events_root: [u8; 32],
    /// Room for resharing the threshold key; empty for now.
    pub reserved: Vec<u8>,
}

impl Header {
    /// Identity of the block.
    pub fn digest(&self) -> [u8; 32] {
        self.digest_typed().0
    }

    pub(crate) fn digest_typed(&self) -> Digest {
        Sha256::hash(&[b"althing-header-1", &self.to_bytes()])
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, std::io::Error> {
        borsh::from_slice(bytes)
    }

    /// The randomness of the block: no coordinator could predict or choose it.
    pub fn beacon(&self) -> [u8; 32] {
        if self.parent_view == 0 {
            return Sha256::hash(&[b"althing-beacon-0", &self.chain_id]).0;
        }
        Sha256::hash(&[b"althing-beacon-1", &self.seed_signature]).0
    }

    fn round(&self) -> Round {
        Round::new(Epoch::new(self.epoch), View::new(self.view))
    }

    fn check(&self) -> Result<(), CodecError> {
        if self.ops_start >= self.ops_end || self.ops_end > MAX_LOCATION {
            return Err(CodecError::Invalid("Header", "range of operations"));
        }
        if self.reserved.len() > MAX_RESERVED_BYTES {
            return Err(CodecError::Invalid("Header", "reserved bytes"));
        }
        key_from_bytes(&self.leader).map_err(|_| CodecError::Invalid("Header", "leader"))?;
        Ok(())
    }
}

/// Operation logs stay far below this.
const MAX_LOCATION: u64 = 1 << 60;

/// A header with its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// The encoded transactions.
    pub txs: Arc<Vec<Vec<u8>>>,
    leader: PublicKey,
}

impl Block {
    /// Joins a header with the transactions it commits to.
    ///
    /// The caller vouches for the transaction root and for the leader being a valid key.
    pub(crate) fn assemble(header: Header, txs: Arc<Vec<Vec<u8>>>) -> Result<Self, CodecError> {
        header.check()?;
        let leader = key_from_bytes(&header.leader).map_err(|_| CodecError::Invalid("Header", "leader"))?;
        Ok(Self { header, txs, leader })
    }

    /// The first block. It commits to the state that the machine starts from.
    pub(crate) fn genesis(
        chain_id: [u8; 32],
        time_ms: u64,
        leader: &PublicKey,
        state_root: [u8; 32],
        ops_root: [u8; 32],
    ) -> Self {
        let none: [Vec<u8>; 0] = [];
        let header = Header {
            chain_id,
            height: 0,
            time_ms,
            epoch: 0,
            view: 0,
            leader: key_bytes(leader),
            parent_view: 0,
            parent: [0; 32],
            seed_signature: [0; 48],
            state_root,
            ops_root,
            ops_start: 0,
            ops_end: 1,
            tx_root: merkle::root(&none),
            receipts_root: merkle::root(&none),
            events_root: merkle::root(&none),
            reserved: Vec::new(),
        };
        Self::assemble(header, Arc::new(Vec::new())).expect("the leader is a participant")
    }
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.header.to_bytes().write(buf);
        self.txs.as_ref().write(buf);
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        self.header.to_bytes().encode_size() + self.txs.as_ref().encode_size()
    }
}

impl Read for Block {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let limit = MAX_HEADER_BYTES + MAX_RESERVED_BYTES;
        let header = Vec::<u8>::read_cfg(buf, &(RangeCfg::new(0..=limit), ()))?;
        let header = Header::from_bytes(&header).map_err(|cause| CodecError::Wrapped("Header", Box::new(cause)))?;
        let count = read_count(buf)?;
        let (mut txs, mut total) = (Vec::with_capacity(count.min(1024)), 0);
        for _ in 0..count {
            let tx = Vec::<u8>::read_cfg(buf, &(RangeCfg::new(0..=MAX_TX_BYTES), ()))?;
            total += tx.len();
            if total > MAX_BLOCK_BYTES {
                return Err(CodecError::Invalid("Block", "too many bytes"));
            }
            txs.push(tx);
        }
        if header.tx_root != merkle::root(&txs) {
            return Err(CodecError::Invalid("Block", "transaction root"));
        }
        Self::assemble(header, Arc::new(txs))
    }
}

fn read_count(buf: &mut impl Buf) -> Result<usize, CodecError> {
    usize::read_cfg(buf, &RangeCfg::new(0..=MAX_BLOCK_TXS))
}

impl BoundedBlock for Block {
    fn max_encode_size(_: &()) -> usize {
        // Every length takes at most five bytes.
        MAX_HEADER_BYTES + MAX_RESERVED_BYTES + MAX_BLOCK_BYTES + 5 * (MAX_BLOCK_TXS + 2)
    }
}

impl Digestible for Block {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        self.header.digest_typed()
    }
}

impl Heightable for Block {
    fn height(&self) -> Height {
        Height::new(self.header.height)
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> Digest {
        sha256::Digest(self.header.parent)
    }
}

impl CertifiableBlock for Block {
    type Context = ConsensusContext;

    fn context(&self) -> ConsensusContext {
        Context {
            round: self.header.round(),
            leader: self.leader.clone(),
            parent: (View::new(self.header.parent_view), sha256::Digest(self.header.parent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{Copying, DecodeExt as _, Encode as _};
    use commonware_cryptography::{Signer as _, ed25519};

    fn sample(txs: Vec<Vec<u8>>) -> Block {
        let leader = ed25519::PrivateKey::from_seed(7).public_key();
        let mut block = Block::genesis([1; 32], 1_700_000_000_000, &leader, [2; 32], [3; 32]);
        block.header.height = 9;
        block.header.view = 12;
        block.header.parent_view = 11;
        block.header.parent = [4; 32];
        block.header.tx_root = merkle::root(&txs);
        block.txs = Arc::new(txs);
        block
    }

    #[test]
    fn blocks_survive_the_wire() {
        for txs in [vec![], vec![vec![], vec![1, 2, 3], vec![9; MAX_TX_BYTES]]] {
            let block = sample(txs);
            let bytes = block.encode();
            assert_eq!(bytes.len(), block.encode_size());
            assert!(bytes.len() <= Block::max_encode_size(&()));
            assert_eq!(Block::decode(Copying(&bytes)).unwrap(), block);
        }
    }

    #[test]
    fn a_block_whose_transactions_do_not_match_its_header_cannot_be_decoded() {
        let mut block = sample(vec![vec![1], vec![2]]);
        block.txs = Arc::new(vec![vec![2], vec![1]]);
        assert!(Block::decode(Copying(&block.encode())).is_err());
    }

    #[test]
    fn oversized_blocks_cannot_be_decoded() {
        let cases: [(&str, Block); 3] = [
            ("one transaction", sample(vec![vec![0; MAX_TX_BYTES + 1]])),
            ("all transactions", sample(vec![vec![0; MAX_TX_BYTES]; 17])),
            ("their number", sample(vec![vec![]; MAX_BLOCK_TXS + 1])),
        ];
        for (name, block) in cases {
            assert!(Block::decode(Copying(&block.encode())).is_err(), "{name}");
        }
    }

    #[test]
    fn malformed_headers_cannot_be_decoded() {
        let mut block = sample(vec![]);
        block.header.ops_start = block.header.ops_end;
        assert!(Block::decode(Copying(&block.encode())).is_err());
        let mut block = sample(vec![]);
        let not_a_point = (0..=255).map(|byte| [byte; 32]);
        block.header.leader = not_a_point.into_iter().find(|bytes| key_from_bytes(bytes).is_err()).unwrap();
        assert!(Block::decode(Copying(&block.encode())).is_err());
    }

    #[test]
    fn the_encoding_of_headers_is_committed() {
        assert_eq!(
            hex::encode(sample(vec![vec![1, 2, 3]]).header.digest()),
            "a68258aa579490ece89d996be7351b2cd5d3165760dc339a03d1e75658528d5f"
        );
    }
}
