//! A small machine for tests: accounts that transfer coins to each other.

use crate::machine::{BlockContext, BlockOutput, Machine, SenderId, StateRead, TxMeta};
use borsh::{BorshDeserialize, BorshSerialize};
use commonware_cryptography::{Hasher as _, Sha256};
use std::collections::BTreeMap;

/// Moves `amount` from one account to another.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Transfer {
    pub(crate) from: SenderId,
    pub(crate) to: SenderId,
    pub(crate) amount: u64,
    pub(crate) nonce: u64,
    pub(crate) expires_at_ms: u64,
    /// Stands for a signature: anything but zero is a bad one.
    pub(crate) forged: u8,
}

impl Transfer {
    pub(crate) fn new(from: u8, to: u8, amount: u64, nonce: u64) -> Self {
        Self { from: [from; 53], to: [to; 53], amount, nonce, expires_at_ms: u64::MAX, forged: 0 }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).unwrap()
    }

    pub(crate) fn balance_key(account: &SenderId) -> Vec<u8> {
        [b"balance/".as_slice(), account].concat()
    }

    fn nonce_key(account: &SenderId) -> Vec<u8> {
        [b"nonce/".as_slice(), account].concat()
    }

    pub(crate) fn set_nonce(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, account: &SenderId, nonce: u64) {
        state.insert(Self::nonce_key(account), nonce.to_le_bytes().to_vec());
    }
}

pub(crate) fn number(state: &dyn StateRead, key: &[u8]) -> u64 {
    state.get(key).map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
}

/// Accounts `[1; 53]` to `[9; 53]` start with a thousand coins each.
#[derive(Default)]
pub(crate) struct TransferMachine {
    /// The first block that it cannot run, if there is one.
    pub(crate) stops_before: Option<u64>,
}

impl Machine for TransferMachine {
    fn genesis(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        (1..10).map(|i| (Transfer::balance_key(&[i; 53]), 1_000u64.to_le_bytes().to_vec())).collect()
    }

    fn check_stateless(&self, tx: &[u8]) -> Result<TxMeta, String> {
        let meta = self.inspect(tx)?;
        self.verify_batch(&[tx.to_vec()]).map_err(|_| "bad signature".to_string())?;
        Ok(meta)
    }

    fn inspect(&self, tx: &[u8]) -> Result<TxMeta, String> {
        let transfer: Transfer = borsh::from_slice(tx).map_err(|cause| cause.to_string())?;
        Ok(TxMeta {
            id: Sha256::hash(&[tx]).0,
            sender: transfer.from,
            nonce: transfer.nonce,
            expires_at_ms: transfer.expires_at_ms,
            priority: 0,
        })
    }

    fn verify_batch(&self, txs: &[Vec<u8>]) -> Result<(), usize> {
        let forged = |tx: &Vec<u8>| tx.last() != Some(&0);
        txs.iter().position(forged).map_or(Ok(()), Err)
    }

    fn next_nonce(&self, state: &dyn StateRead, sender: &SenderId) -> u64 {
        number(state, &Transfer::nonce_key(sender))
    }

    fn check_mempool(&self, _: &dyn StateRead, tx: &[u8]) -> Result<(), String> {
        let transfer: Transfer = borsh::from_slice(tx).map_err(|cause| cause.to_string())?;
        match transfer.from == transfer.to {
            true => Err("a transfer to oneself".into()),
            false => Ok(()),
        }
    }

    fn can_run(&self, _: &dyn StateRead, next_height: u64) -> Result<(), String> {
        match self.stops_before {
            Some(height) if next_height >= height => Err(format!("height {height} is for another program")),
            _ => Ok(()),
        }
    }

    fn execute(&self, state: &dyn StateRead, ctx: &BlockContext, txs: &[Vec<u8>]) -> BlockOutput {
        let mut output = BlockOutput::default();
        let mut values: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for tx in txs {
            let transfer: Transfer = borsh::from_slice(tx).unwrap();
            let mut at = |key: Vec<u8>| -> u64 { *values.entry(key.clone()).or_insert_with(|| number(state, &key)) };
            let nonce = at(Transfer::nonce_key(&transfer.from));
            let from = at(Transfer::balance_key(&transfer.from));
            let to = at(Transfer::balance_key(&transfer.to));
            values.insert(Transfer::nonce_key(&transfer.from), nonce + 1);
            let Some(rest) = from.checked_sub(transfer.amount) else {
                output.receipts.push(b"insufficient".to_vec());
                continue;
            };
            values.insert(Transfer::balance_key(&transfer.from), rest);
            values.insert(Transfer::balance_key(&transfer.to), to + transfer.amount);
            output.receipts.push(b"ok".to_vec());
            output.events.push(format!("{}:{}", ctx.height, transfer.amount).into_bytes());
        }
        output.writes = values.into_iter().map(|(key, value)| (key, Some(value.to_le_bytes().to_vec()))).collect();
        output.writes.insert(b"beacon".to_vec(), Some(ctx.beacon.to_vec()));
        output
    }
}
