//! How a network starts: its name, parameters, and who owns what. (G-1)

use crate::{
    Address, Amount, AssetId, ChainId, Cid, Hash, ModelId, ModelReward, Params, SessionPublicKey, Verification, amount,
    call::Scope,
};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// The first state. Its hash is the chain id, which every signature carries.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The network's name, for people.
    pub network: String,
    /// Time of block 0, ms since the Unix epoch.
    pub time_ms: u64,
    /// The coordinators' threshold public key and participants, as `chain` encodes them, hex.
    pub coordinators: String,
    pub accounts: Vec<GenesisAccount>,
    #[serde(default)]
    pub models: Vec<GenesisModel>,
    /// Providers that vote with weight 1 each while bonds are not required. (T-9)
    #[serde(default)]
    pub voters: Vec<Address>,
    /// The coordinators' accounts, which say whether inputs can be fetched; none: nobody is asked. (T-21)
    #[serde(default)]
    pub coordinator_accounts: Vec<Address>,
    pub params: Params,
}

/// One account of the first state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAccount {
    pub address: Address,
    /// Spendable balance.
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub free: Amount,
    /// Provider bond; zero for none.
    #[serde(default, deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub bond: Amount,
    /// Session keys that exist from the start.
    #[serde(default)]
    pub session_keys: Vec<GenesisSessionKey>,
    /// Test assets that it holds. (G-4)
    #[serde(default)]
    pub assets: Vec<GenesisAsset>,
}

/// So much of a test asset. (G-4)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAsset {
    /// Only test assets can be endowed: the others come from what happens.
    pub asset: AssetId,
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub amount: Amount,
}

/// One session key of the first state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisSessionKey {
    pub key: SessionPublicKey,
    pub scope: Scope,
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub spend_limit: Amount,
    pub expires_at_ms: u64,
}

/// One model of the first state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisModel {
    pub name: String,
    pub owner: Address,
    pub package: Cid,
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub fee: Amount,
    pub payee: Address,
    pub verification: Verification,
    /// Set if its runs earn rewards from the start. (T-6)
    #[serde(default)]
    pub reward: Option<ModelReward>,
}

impl Genesis {
    /// The hash of the whole genesis.
    pub fn chain_id(&self) -> ChainId {
        ChainId(Hash::of(&[b"althing/genesis/v1", &crate::encode(self)]).0)
    }
}

impl GenesisModel {
    /// The id that the model has on the ledger.
    pub fn id(&self) -> ModelId {
        ModelId::derive(&self.owner, &self.package)
    }
}
