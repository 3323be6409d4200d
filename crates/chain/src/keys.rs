//! The keys of a network and of its coordinators.
//!
//! A network has one BLS12-381 public key that stays the same however its coordinators change.
//! Each coordinator holds a share of the matching private key, and an ed25519 key that identifies
//! it to its peers. [`deal`] makes all of them in one place, which is what development networks
//! want; whoever runs it has seen every secret.

use bytes::Buf as _;
use commonware_codec::{Copying, DecodeExt as _, Encode, RangeCfg, Read, Write};
use commonware_consensus::simplex::scheme::bls12381_threshold::vrf;
use commonware_cryptography::{
    Signer as _,
    bls12381::{
        dkg::feldman_desmedt,
        primitives::{
            group,
            sharing::{Mode, ModeVersion, Sharing},
            variant::{MinSig, Variant},
        },
    },
    ed25519,
};
use commonware_math::algebra::Random as _;
use commonware_utils::{N3f1, NZU32, TryCollect as _, ordered::Set};
use rand_core::CryptoRng;
use std::num::NonZeroU32;

/// Identifies a coordinator to its peers.
pub type PublicKey = ed25519::PublicKey;

/// The one signature scheme of the chain.
pub type Scheme = vrf::Scheme<PublicKey, MinSig>;

/// Separates consensus signatures from all other uses of the keys.
pub(crate) const NAMESPACE: &[u8] = b"althing-bft-1";

/// Most coordinators that a network can have.
pub const MAX_COORDINATORS: NonZeroU32 = NZU32!(256);

/// A key file or field that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not hexadecimal: {0}")]
    Hex(#[from] hex::FromHexError),
    #[error("malformed {what}: {cause}")]
    Malformed { what: &'static str, cause: commonware_codec::Error },
    #[error("a network needs between 1 and {MAX_COORDINATORS} coordinators, not {0}")]
    Count(u32),
    #[error("{participants} participants but a key shared among {shares}")]
    Mismatch { participants: usize, shares: u32 },
    #[error("the share does not belong to this network")]
    ForeignShare,
}

/// What everybody may know of a network: its coordinators and its threshold public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPublic {
    participants: Set<PublicKey>,
    sharing: Sharing<MinSig>,
}

impl NetworkPublic {
    /// The coordinators in their canonical order.
    pub fn participants(&self) -> Vec<[u8; 32]> {
        self.participants.iter().map(key_bytes).collect()
    }

    /// The threshold public key, the only thing needed to check certificates.
    pub fn identity(&self) -> Vec<u8> {
        self.sharing.public().encode().to_vec()
    }

    pub(crate) fn set(&self) -> &Set<PublicKey> {
        &self.participants
    }

    /// A scheme that can only check certificates.
    pub(crate) fn certificate_verifier(&self) -> Scheme {
        Scheme::certificate_verifier(NAMESPACE, *self.sharing.public())
    }

    /// A scheme that signs with `secret`.
    pub(crate) fn signer(&self, secret: &CoordinatorSecret) -> Result<Scheme, KeyError> {
        let index = usize::from(secret.share.index);
        if self.participants.get(index) != Some(&secret.identity.public_key()) {
            return Err(KeyError::ForeignShare);
        }
        Scheme::signer(NAMESPACE, self.participants.clone(), self.sharing.clone(), secret.share.clone())
            .ok_or(KeyError::ForeignShare)
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.participants.write(&mut bytes);
        self.sharing.write(&mut bytes);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut bytes = Copying(bytes);
        let malformed = |what| move |cause| KeyError::Malformed { what, cause };
        let limit = MAX_COORDINATORS.get() as usize;
        let participants = Set::<PublicKey>::read_cfg(&mut bytes, &(RangeCfg::new(1..=limit), ()))
            .map_err(malformed("participants"))?;
        let sharing = Sharing::<MinSig>::read_cfg(&mut bytes, &(MAX_COORDINATORS, ModeVersion::v0()))
            .map_err(malformed("threshold key"))?;
        if bytes.remaining() > 0 {
            return Err(malformed("network key")(commonware_codec::Error::ExtraData(bytes.remaining())));
        }
        let shares = sharing.total().get();
        if participants.len() != shares as usize {
            return Err(KeyError::Mismatch { participants: participants.len(), shares });
        }
        Ok(Self { participants, sharing })
    }

    /// [`Self::to_bytes`] in hexadecimal, for files.
    pub fn to_hex(&self) -> String {
        hex::encode(self.to_bytes())
    }

    /// Reads what [`Self::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&hex::decode(text.trim())?)
    }
}

/// The secrets of one coordinator.
#[derive(Clone)]
pub struct CoordinatorSecret {
    identity: ed25519::PrivateKey,
    share: group::Share,
}

impl CoordinatorSecret {
    /// The public key that identifies this coordinator.
    pub fn public_key(&self) -> [u8; 32] {
        key_bytes(&self.identity.public_key())
    }

    pub(crate) fn identity(&self) -> &ed25519::PrivateKey {
        &self.identity
    }

    /// Canonical bytes. Handle with care.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.identity.write(&mut bytes);
        self.share.write(&mut bytes);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let (identity, share) = <(ed25519::PrivateKey, group::Share)>::decode(Copying(bytes))
            .map_err(|cause| KeyError::Malformed { what: "coordinator secret", cause })?;
        Ok(Self { identity, share })
    }

    /// [`Self::to_bytes`] in hexadecimal, for files.
    pub fn to_hex(&self) -> String {
        hex::encode(self.to_bytes())
    }

    /// Reads what [`Self::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&hex::decode(text.trim())?)
    }
}

impl std::fmt::Debug for CoordinatorSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CoordinatorSecret({})", hex::encode(self.public_key()))
    }
}

/// Makes the keys of a network of `n` coordinators. Secrets come in the order of
/// [`NetworkPublic::participants`].
pub fn deal(n: u32, mut rng: impl CryptoRng) -> Result<(NetworkPublic, Vec<CoordinatorSecret>), KeyError> {
    if n == 0 || n > MAX_COORDINATORS.get() {
        return Err(KeyError::Count(n));
    }
    let mut identities: Vec<_> = (0..n).map(|_| ed25519::PrivateKey::random(&mut rng)).collect();
    identities.sort_by_key(|identity| identity.public_key());
    let participants: Set<PublicKey> =
        identities.iter().map(|identity| identity.public_key()).try_collect().expect("random keys are distinct");
    let (output, shares) =
        feldman_desmedt::deal::<MinSig, PublicKey, N3f1>(&mut rng, Mode::NonZeroCounter, participants.clone())
            .expect("there is at least one player");
    let secrets = identities
        .into_iter()
        .map(|identity| CoordinatorSecret {
            share: shares.get_value(&identity.public_key()).expect("every player has a share").clone(),
            identity,
        })
        .collect();
    let network = NetworkPublic { participants, sharing: output.public().clone() };
    Ok((network, secrets))
}

pub(crate) fn key_bytes(key: &PublicKey) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(key.as_ref());
    bytes
}

pub(crate) fn key_from_bytes(bytes: &[u8; 32]) -> Result<PublicKey, KeyError> {
    PublicKey::decode(Copying(bytes)).map_err(|cause| KeyError::Malformed { what: "coordinator public key", cause })
}

/// A signature of the threshold key over a view.
pub(crate) type SeedSignature = <MinSig as Variant>::Signature;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn dealt(n: u32, seed: u64) -> (NetworkPublic, Vec<CoordinatorSecret>) {
        deal(n, rand::rngs::StdRng::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn keys_survive_being_written_to_files() {
        let (network, secrets) = dealt(4, 1);
        let read = NetworkPublic::from_hex(&network.to_hex()).unwrap();
        assert_eq!(network, read);
        for (secret, public) in secrets.iter().zip(network.participants()) {
            let read_secret = CoordinatorSecret::from_hex(&secret.to_hex()).unwrap();
            assert_eq!(read_secret.public_key(), public);
            assert!(read.signer(&read_secret).is_ok());
        }
    }

    #[test]
    fn a_share_of_another_network_is_refused() {
        let (network, _) = dealt(4, 1);
        let (_, secrets) = dealt(4, 2);
        assert!(matches!(network.signer(&secrets[0]), Err(KeyError::ForeignShare)));
    }

    #[test]
    fn truncated_and_extended_keys_are_refused() {
        let (network, secrets) = dealt(1, 1);
        let mut bytes = network.to_bytes();
        assert!(NetworkPublic::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        bytes.push(0);
        assert!(NetworkPublic::from_bytes(&bytes).is_err());
        let mut bytes = secrets[0].to_bytes();
        bytes.push(0);
        assert!(CoordinatorSecret::from_bytes(&bytes).is_err());
    }

    #[test]
    fn networks_of_no_or_too_many_coordinators_are_refused() {
        for n in [0, 257] {
            let rng = rand::rngs::StdRng::seed_from_u64(1);
            assert!(matches!(deal(n, rng), Err(KeyError::Count(got)) if got == n));
        }
    }
}
