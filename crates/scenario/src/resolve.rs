//! Short forms: what a scenario writes for addresses, amounts, ids, hashes and times.
//!
//! | written | stands for |
//! |---|---|
//! | `@alice` | the account's address |
//! | `shares:fox`, `pool:native+test:1` | the asset of a model's shares, the pool between two assets |
//! | `$first` | the id of the order that a step named `first` |
//! | `model:fox` | the id of a model of the scenario |
//! | `4.5 ALTH` | base units |
//! | `+30s` | the block's time and so much, in ms |
//! | `cid:some text` | the CID of that text |
//! | `hash:some text` | its SHA-256 |
//! | `key:name` | a session key of that name |
//! | `commitment:some text` | the caller's commitment to that answer for the call's order |
//! | `ballot:some text` | the caller's committed vote for that answer |
//! | `salt` | the salt of both |
//!
//! Everything else stands for itself.

use althing_types::{
    Address, Amount, AssetId, BallotAnswer, ChainId, Hash, ModelId, OrderId, PoolId, SessionPublicKey,
    commitment::{ballot_hash, commitment_hash},
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What names stand for at a moment of the story.
pub(crate) struct Names {
    pub chain: ChainId,
    pub accounts: BTreeMap<String, Address>,
    pub models: BTreeMap<String, ModelId>,
    pub orders: BTreeMap<String, OrderId>,
    /// Block time of the next block, ms.
    pub now_ms: u64,
    /// Round of the jury of an order's dispute.
    pub rounds: BTreeMap<OrderId, u8>,
}

/// The address of an account of a scenario: nobody has its key, and nobody needs it.
pub(crate) fn address_of(name: &str) -> Address {
    let hash = Hash::of(&[b"althing/scenario/account", name.as_bytes()]);
    let mut address = Address::ZERO;
    address.0.copy_from_slice(&hash.0[..20]);
    address
}

fn salt_of(by: &Address) -> Hash {
    Hash::of(&[b"althing/scenario/salt", by.as_bytes()])
}

impl Names {
    pub(crate) fn account(&self, name: &str) -> Result<Address, String> {
        let known = || self.accounts.keys().cloned().collect::<Vec<_>>().join(", ");
        self.accounts.get(name).copied().ok_or_else(|| format!("there is no account {name:?}; there are {}", known()))
    }

    pub(crate) fn order(&self, name: &str) -> Result<OrderId, String> {
        let known = || self.orders.keys().cloned().collect::<Vec<_>>().join(", ");
        self.orders.get(name).copied().ok_or_else(|| format!("there is no order {name:?}; there are {}", known()))
    }

    pub(crate) fn model(&self, name: &str) -> Result<ModelId, String> {
        let known = || self.models.keys().cloned().collect::<Vec<_>>().join(", ");
        self.models.get(name).copied().ok_or_else(|| format!("there is no model {name:?}; there are {}", known()))
    }

    /// `native`, `shares:fox`, `lp:native+test:1`, `test:1`.
    fn asset(&self, text: &str) -> Result<AssetId, String> {
        if let Some(name) = text.strip_prefix("shares:")
            && let Ok(model) = self.model(name)
        {
            return Ok(AssetId::Shares(model));
        }
        text.parse().map_err(|error| format!("{error}"))
    }

    /// The pool of `pool:A+B`.
    pub(crate) fn pool(&self, text: &str) -> Result<PoolId, String> {
        let wrong = || format!("{text:?} is not a pool: write pool:native+test:1");
        let (a, b) = text.strip_prefix("pool:").and_then(|assets| assets.split_once('+')).ok_or_else(wrong)?;
        Ok(PoolId::of(self.asset(a)?, self.asset(b)?))
    }

    /// Resolves a value by `by`, whose call is about `order`.
    pub(crate) fn value(&self, value: &toml::Value, by: &Address, order: Option<OrderId>) -> Result<Value, String> {
        Ok(match value {
            toml::Value::String(text) => self.text(text, by, order)?,
            toml::Value::Integer(number) => (*number).into(),
            toml::Value::Boolean(flag) => (*flag).into(),
            toml::Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item, by, order)).collect::<Result<_, _>>()?)
            }
            toml::Value::Table(table) => Value::Object(self.table(table, by, order)?),
            toml::Value::Float(_) | toml::Value::Datetime(_) => {
                return Err("fractions and dates have no meaning here: write amounts as \"4.5 ALTH\"".into());
            }
        })
    }

    fn table(&self, table: &toml::Table, by: &Address, order: Option<OrderId>) -> Result<Map<String, Value>, String> {
        let entries = table.iter().map(|(key, value)| Ok((key.clone(), self.value(value, by, order)?)));
        entries.collect()
    }

    /// Resolves the fields of a call; its `order` first, which commitments are made for.
    pub(crate) fn fields(&self, fields: &toml::Table, by: &Address) -> Result<Map<String, Value>, String> {
        let order = match fields.get("order") {
            Some(toml::Value::String(text)) => match text.strip_prefix('$') {
                Some(name) => Some(self.order(name)?),
                None => text.parse().ok(),
            },
            _ => None,
        };
        self.table(fields, by, order)
    }

    fn text(&self, text: &str, by: &Address, order: Option<OrderId>) -> Result<Value, String> {
        let needs_order = || "a commitment needs the call's order".to_owned();
        let string = |value: &dyn std::fmt::Display| Value::String(value.to_string());
        if let Some(name) = text.strip_prefix('@') {
            return Ok(string(&self.account(name)?));
        }
        if let Some(name) = text.strip_prefix('$') {
            return Ok(string(&self.order(name)?));
        }
        if let Some(tokens) = text.strip_suffix(" ALTH") {
            let amount: Amount = tokens.parse().map_err(|error| format!("{error}"))?;
            return Ok(string(&amount.0));
        }
        if let Some(after) = text.strip_prefix('+') {
            return Ok((self.now_ms + crate::file::parse_duration(after)?).into());
        }
        if text == "salt" {
            return Ok(string(&salt_of(by)));
        }
        Ok(match text.split_once(':') {
            Some(("model", name)) => string(&self.model(name)?),
            Some(("shares", name)) => string(&self.asset(text).map_err(|_| format!("there is no model {name:?}"))?),
            Some(("pool", _)) => string(&self.pool(text)?),
            Some(("cid", content)) => string(&althing_content::file_cid(content.as_bytes())),
            Some(("hash", content)) => string(&Hash::of(&[content.as_bytes()])),
            Some(("key", name)) => string(&SessionPublicKey(Hash::of(&[b"althing/scenario/key", name.as_bytes()]).0)),
            Some(("commitment", answer)) => {
                let order = order.ok_or_else(needs_order)?;
                let cid = althing_content::file_cid(answer.as_bytes());
                string(&commitment_hash(&self.chain, &order, by, &cid, answer.len() as u64, &salt_of(by)))
            }
            Some(("ballot", answer)) => {
                let order = order.ok_or_else(needs_order)?;
                let round = self.rounds.get(&order).copied().unwrap_or(0);
                let answer = match answer {
                    "input_unavailable" => BallotAnswer::InputUnavailable,
                    answer => BallotAnswer::Output { output: althing_content::file_cid(answer.as_bytes()) },
                };
                string(&ballot_hash(&self.chain, &order, round, by, &answer, &salt_of(by)))
            }
            _ => text.into(),
        })
    }
}
