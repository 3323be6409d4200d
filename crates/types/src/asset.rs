//! Assets: what balances are of. The native token, and what the ledger's market trades beside it. (G-4)

use crate::{Address, Amount, Hash, ModelId, PoolId, encode, id::ParseIdError};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::{fmt, num::ParseIntError, str::FromStr};

/// An asset of the ledger; as text `native`, `shares:<model>`, `lp:<pool>` or `test:<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum AssetId {
    /// The network's own token.
    Native,
    /// Shares of a model DAO: whole counts, so that an amount of 5 is five shares. (T-14)
    Shares(ModelId),
    /// Shares of a pool of the market. (G-4)
    Lp(PoolId),
    /// An asset without value that a genesis endowed, for development.
    Test(u32),
}

impl AssetId {
    /// So much of this asset.
    pub fn amount(self, amount: Amount) -> AssetAmount {
        AssetAmount { asset: self, amount }
    }
}

impl PoolId {
    /// The pool between two assets, in either order.
    pub fn of(a: AssetId, b: AssetId) -> Self {
        let (first, second) = (a.min(b), a.max(b));
        Self(Hash::of(&[b"althing/pool/v1", &encode(&first), &encode(&second)]).0)
    }
    /// The address under which the pool holds shares of model DAOs; no key can own it.
    pub fn account(&self) -> Address {
        derived_address(b"althing/pool-account/v1", self.as_bytes())
    }
}

impl ModelId {
    /// The address that collects the fees of the model's DAO; no key can own it. (T-14)
    pub fn dao_payee(&self) -> Address {
        derived_address(b"althing/dao-payee/v1", self.as_bytes())
    }
}

/// The first 20 bytes of a hash: an address for which nobody can find a key.
fn derived_address(tag: &[u8], id: &[u8]) -> Address {
    let mut address = Address::ZERO;
    address.0.copy_from_slice(&Hash::of(&[tag, id]).0[..20]);
    address
}

/// Why a text is no asset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAssetError {
    #[error("{0:?} is no asset: write native, shares:<model id>, lp:<pool id> or test:<number>")]
    Unknown(String),
    #[error(transparent)]
    Id(#[from] ParseIdError),
    #[error("the number of a test asset: {0}")]
    Number(#[from] ParseIntError),
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Shares(model) => write!(f, "shares:{model}"),
            Self::Lp(pool) => write!(f, "lp:{pool}"),
            Self::Test(number) => write!(f, "test:{number}"),
        }
    }
}

impl FromStr for AssetId {
    type Err = ParseAssetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "native" => Ok(Self::Native),
            Some(("shares", model)) => Ok(Self::Shares(model.parse()?)),
            Some(("lp", pool)) => Ok(Self::Lp(pool.parse()?)),
            Some(("test", number)) => Ok(Self::Test(number.parse()?)),
            _ => Err(ParseAssetError::Unknown(text.chars().take(80).collect())),
        }
    }
}

impl Serialize for AssetId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AssetId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as Deserialize<'de>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// So much of an asset, as people read it: shares as whole counts, the others with 18 decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct AssetAmount {
    pub asset: AssetId,
    pub amount: Amount,
}

impl fmt::Display for AssetAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.asset {
            AssetId::Native => write!(f, "{} ALTH", self.amount),
            AssetId::Shares(model) => write!(f, "{} shares of model {model}", self.amount.0),
            asset => write!(f, "{} {asset}", self.amount),
        }
    }
}

/// What an account has of one asset. (E-4)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub asset: AssetId,
    /// Can be sent, sold, put into a pool.
    pub free: Amount,
    /// Shares that are on sale, liquidity shares that are staked.
    pub locked: Amount,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_round_trip_through_text_and_wrong_ones_say_why() {
        // G-4
        let (model, pool) = (ModelId([0xab; 32]), PoolId([3; 32]));
        for asset in [AssetId::Native, AssetId::Shares(model), AssetId::Lp(pool), AssetId::Test(u32::MAX)] {
            assert_eq!(asset.to_string().parse(), Ok(asset));
        }
        assert_eq!(AssetId::Test(7).to_string(), "test:7");
        assert!(matches!("gold".parse::<AssetId>(), Err(ParseAssetError::Unknown(_))));
        assert!(matches!("native:1".parse::<AssetId>(), Err(ParseAssetError::Unknown(_))));
        assert!(matches!("lp:12".parse::<AssetId>(), Err(ParseAssetError::Id(_))));
        assert!(matches!("test:-1".parse::<AssetId>(), Err(ParseAssetError::Number(_))));
    }

    #[test]
    fn shares_print_as_counts_and_the_rest_as_tokens() {
        // T-14
        let model = ModelId([0; 32]);
        assert_eq!(AssetId::Shares(model).amount(Amount(5)).to_string(), format!("5 shares of model {model}"));
        assert_eq!(AssetId::Native.amount(Amount::tokens(5)).to_string(), "5 ALTH");
        assert_eq!(AssetId::Test(1).amount(Amount(5)).to_string(), "0.000000000000000005 test:1");
    }

    #[test]
    fn a_pool_has_one_id_whichever_asset_is_named_first() {
        let (a, b) = (AssetId::Native, AssetId::Test(1));
        assert_eq!(PoolId::of(a, b), PoolId::of(b, a));
        assert_ne!(PoolId::of(a, b), PoolId::of(a, AssetId::Test(2)));
    }
}
