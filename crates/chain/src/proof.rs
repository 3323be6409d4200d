//! Checking the ledger without trusting a node.
//!
//! A [`StateProof`] shows what value a key has, or that it has none, to anyone who knows the
//! network's public key. It goes in three steps: the value is in the state named by the state root
//! of a header; that header is the first of a chain of headers; and the last of them was
//! finalized, for which it has a certificate by the threshold key. (Most blocks have a certificate
//! of their own. Some are final only because a later block is.) All functions here are pure.

use crate::{
    block::{Digest, Header},
    keys::{NetworkPublic, Scheme},
    store::{CHUNK, Entry, state_key},
};
use borsh::{BorshDeserialize, BorshSerialize};
use commonware_codec::{Copying, Decode as _, Encode as _};
use commonware_consensus::simplex::types::Finalization;
use commonware_cryptography::{Hasher as _, Sha256, sha256};
use commonware_parallel::Sequential;
use commonware_storage::{
    merkle::MAX_PROOF_DIGESTS_PER_ELEMENT,
    mmr,
    qmdb::{
        any::value::VariableEncoding,
        current::ordered::proof::constant::{ExclusionProof, KeyValueProof},
    },
};
use rand::{SeedableRng as _, rngs::StdRng};

type Presence = KeyValueProof<mmr::Family, Digest, Digest, CHUNK>;
type Absence = ExclusionProof<mmr::Family, Digest, VariableEncoding<Entry>, Digest, CHUNK>;

const PRESENT: u8 = 1;
const ABSENT: u8 = 0;
/// Headers from the one that is proven to the one that is certified.
pub(crate) const HEADERS_MAX: usize = 256;

/// Why something is not proven.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the {0} cannot be decoded")]
    Malformed(&'static str),
    #[error("the proof is about the {0} of a value and does not show its {1}")]
    WrongKind(&'static str, &'static str),
    #[error("the value is not in the state with this root")]
    State,
    #[error("the header belongs to another chain")]
    ForeignChain,
    #[error("the proof has {0} headers")]
    HeaderCount(usize),
    #[error("header {0} does not name the one before it as its parent")]
    Chain(u64),
    #[error("the certificate is for another block")]
    OtherBlock,
    #[error("the certificate is not signed by the network")]
    Signature,
}

/// Checks that `key` has `value`, or no value, in the state named `state_root`.
pub fn verify_state_proof(
    state_root: &[u8; 32],
    key: &[u8],
    value: Option<&[u8]>,
    proof: &[u8],
) -> Result<(), ProofError> {
    const DIGESTS_MAX: usize = MAX_PROOF_DIGESTS_PER_ELEMENT;
    let malformed = |_| ProofError::Malformed("state proof");
    let root = sha256::Digest(*state_root);
    let id = state_key(key);
    let (kind, proof) = proof.split_first().ok_or(ProofError::Malformed("state proof"))?;
    let proven = match (*kind, value) {
        (PRESENT, Some(value)) => {
            let entry = Entry { key: key.to_vec(), value: value.to_vec() };
            Presence::decode_cfg(Copying(proof), &(DIGESTS_MAX, ()))
                .map_err(malformed)?
                .verify::<Sha256, VariableEncoding<Entry>>(id, entry, &root)
        }
        (ABSENT, None) => Absence::decode_cfg(Copying(proof), &(DIGESTS_MAX, ((), ()), ()))
            .map_err(malformed)?
            .verify::<Sha256>(&id, &root),
        (PRESENT, None) => return Err(ProofError::WrongKind("presence", "absence")),
        (ABSENT, Some(_)) => return Err(ProofError::WrongKind("absence", "presence")),
        _ => return Err(ProofError::Malformed("state proof")),
    };
    proven.then_some(()).ok_or(ProofError::State)
}

pub(crate) fn encode_presence(proof: &Presence) -> Vec<u8> {
    [[PRESENT].as_slice(), &proof.encode()].concat()
}

pub(crate) fn encode_absence(proof: &Absence) -> Vec<u8> {
    [[ABSENT].as_slice(), &proof.encode()].concat()
}

/// Checks that the network finalized the block of `header`.
pub fn verify_finalization(network: &NetworkPublic, header: &Header, certificate: &[u8]) -> Result<(), ProofError> {
    let finalization = Finalization::<Scheme, Digest>::decode_cfg(Copying(certificate), &())
        .map_err(|_| ProofError::Malformed("certificate"))?;
    let proposal = &finalization.proposal;
    if proposal.payload != header.digest_typed() {
        return Err(ProofError::OtherBlock);
    }
    // Verification combines two signatures with random weights. Deriving them from all that is
    // being verified keeps the function pure.
    let seed = Sha256::hash(&[b"althing-certificate-check", certificate]).0;
    let mut rng = StdRng::from_seed(seed);
    match finalization.verify(&mut rng, &network.certificate_verifier(), &Sequential) {
        true => Ok(()),
        false => Err(ProofError::Signature),
    }
}

/// Headers of which each is the parent of the next, and a certificate for the last.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CertifiedHeader {
    /// The header in question and, if it has no certificate of its own, those that follow it.
    pub headers: Vec<Header>,
    /// Finalization certificate of the last header.
    pub certificate: Vec<u8>,
}

impl CertifiedHeader {
    /// Checks that the network finalized the block of the first header, which is returned.
    pub fn verify(&self, network: &NetworkPublic, chain_id: &[u8; 32]) -> Result<&Header, ProofError> {
        let count = ProofError::HeaderCount(self.headers.len());
        let (Some(first), Some(last)) = (self.headers.first(), self.headers.last()) else {
            return Err(count);
        };
        if self.headers.len() > HEADERS_MAX {
            return Err(count);
        }
        if self.headers.iter().any(|header| header.chain_id != *chain_id) {
            return Err(ProofError::ForeignChain);
        }
        for pair in self.headers.windows(2) {
            if pair[1].parent != pair[0].digest() {
                return Err(ProofError::Chain(pair[1].height));
            }
        }
        verify_finalization(network, last, &self.certificate)?;
        Ok(first)
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        borsh::from_slice(bytes).map_err(|_| ProofError::Malformed("header"))
    }
}

/// Shows what value a key has, or that it has none, after the block of a finalized header.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateProof {
    /// The key.
    pub key: Vec<u8>,
    /// Its value, if it has one.
    pub value: Option<Vec<u8>>,
    /// Links the value to the state root of the header.
    pub proof: Vec<u8>,
    /// The header, and that it is final.
    pub header: CertifiedHeader,
}

impl StateProof {
    /// Checks the whole proof; the header says at what height and time it holds.
    pub fn verify(&self, network: &NetworkPublic, chain_id: &[u8; 32]) -> Result<&Header, ProofError> {
        let header = self.header.verify(network, chain_id)?;
        verify_state_proof(&header.state_root, &self.key, self.value.as_deref(), &self.proof)?;
        Ok(header)
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        borsh::from_slice(bytes).map_err(|_| ProofError::Malformed("proof"))
    }
}
