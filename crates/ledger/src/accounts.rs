//! Balances, nonces and session keys.
//!
//! An account is an address with a free balance. A wallet-signed transaction carries the account's
//! nonce; one signed by a session key carries the key's own, so that several machines act for one
//! account without waiting for each other.

use crate::{
    budgets, costs,
    exec::{Done, Exec, add},
    state::{Map, StateRead},
    supply::{self, Place},
    votes,
};
use althing_types::{
    Account, Address, Amount, AssetId, Auth, Call, Event, LedgerError, OrderId, SessionKey, SessionPublicKey, SignedTx,
    call::Scope, event::PaymentKind, object::Earned,
};

/// Most session keys of one account.
pub const SESSION_KEYS_MAX: u32 = 64;

const ACCOUNTS: Map<Address, Account> = Map::new(0x01);
const SESSION_KEYS: Map<(Address, SessionPublicKey), SessionKey> = Map::new(0x02);

/// The account at `address`; empty if it never held anything.
pub fn account(state: &dyn StateRead, address: &Address) -> Account {
    ACCOUNTS.get(state, address).unwrap_or_default()
}

/// A session key of an account.
pub fn session_key(state: &dyn StateRead, account: &Address, key: &SessionPublicKey) -> Option<SessionKey> {
    SESSION_KEYS.get(state, &(*account, *key))
}

/// Every account, for invariants and tools.
pub fn all(state: &dyn StateRead, after: Option<Address>, limit: usize) -> Vec<(Address, Account)> {
    match after {
        None => ACCOUNTS.first(state, limit),
        Some(after) => ACCOUNTS.after(state, &after, limit),
    }
}

/// The session keys of an account. (E-4)
pub(crate) fn session_keys_of(state: &dyn StateRead, account: &Address) -> Vec<SessionKey> {
    let (from, to) = ((*account, SessionPublicKey::ZERO), (*account, SessionPublicKey([0xff; 32])));
    SESSION_KEYS.range(state, &from, &to, SESSION_KEYS_MAX as usize).into_iter().map(|(_, key)| key).collect()
}

/// Every session key, for invariants.
pub(crate) fn all_session_keys(state: &dyn StateRead) -> Vec<SessionKey> {
    SESSION_KEYS.first(state, usize::MAX).into_iter().map(|(_, key)| key).collect()
}

/// The nonce that the signer of `tx` must use next.
///
/// # Errors
/// [`LedgerError::UnknownSessionKey`].
pub fn nonce_next(state: &dyn StateRead, tx: &SignedTx) -> Done<u64> {
    match &tx.auth {
        Auth::Wallet { account: address, .. } => Ok(account(state, address).nonce),
        Auth::Session { account, key, .. } => {
            session_key(state, account, key).map(|key| key.nonce).ok_or(LedgerError::UnknownSessionKey)
        }
    }
}

/// Stores an account whose votable units are the same, or whose voting power is kept by [`votes`].
pub(crate) fn store(exec: &mut Exec<'_>, address: &Address, account: &Account) {
    ACCOUNTS.set(&mut exec.state, address, account);
}

/// Takes `amount` out of the free balance, towards `to`.
pub(crate) fn debit(exec: &mut Exec<'_>, address: &Address, amount: Amount, to: Place) -> Done {
    votes::update(exec, address, |account| {
        let free = account.free;
        account.free = free.checked_sub(amount).ok_or(LedgerError::InsufficientBalance { needed: amount, free })?;
        Ok(())
    })?;
    supply::shift(exec, Place::of(address), to, amount);
    Ok(())
}

/// Adds `amount`, coming from `from`, to the free balance.
pub(crate) fn credit(exec: &mut Exec<'_>, address: &Address, amount: Amount, from: Place) {
    credit_with(exec, address, amount, from, |_| {});
}

/// The same for earnings that were owed. (E-4)
pub(crate) fn credit_earned(exec: &mut Exec<'_>, address: &Address, fees: Amount, rewards: Amount, from: Place) {
    let amount = fees.checked_add(rewards).expect("both are parts of the supply, which fits");
    credit_with(exec, address, amount, from, |account| {
        earn(&mut account.earned, PaymentKind::ProviderFee, fees);
        earn(&mut account.earned, PaymentKind::Reward, rewards);
    });
}

fn credit_with(exec: &mut Exec<'_>, address: &Address, amount: Amount, from: Place, also: impl FnOnce(&mut Account)) {
    if amount.is_zero() {
        return;
    }
    votes::update(exec, address, |account| {
        let free = account.free.checked_add(amount);
        account.free = free.expect("no account holds more than the issued supply, which fits");
        also(account);
        Ok(())
    })
    .expect("this change has no way to fail");
    supply::shift(exec, from, Place::of(address), amount);
}

/// A payment out of `from`, told as an event and counted as earned, by its kind. (E-3, E-4)
pub(crate) fn pay(exec: &mut Exec<'_>, to: &Address, amount: Amount, from: Place, kind: PaymentKind, order: OrderId) {
    if amount.is_zero() {
        return;
    }
    credit_with(exec, to, amount, from, |account| earn(&mut account.earned, kind, amount));
    exec.emit(Event::Paid { to: *to, amount, kind, order });
}

/// Adds to what an account earned. (E-4)
fn earn(earned: &mut Earned, kind: PaymentKind, amount: Amount) {
    use PaymentKind::*;
    let sum = match kind {
        ModelFee | TreasuryFee | CoordinatorFee | ProviderFee | AgreementFee => &mut earned.fees,
        Reward | RewardTreasury => &mut earned.rewards,
        SlashLeader | SlashJuror | SlashTreasury => &mut earned.slashes,
        Refund => return,
    };
    *sum = sum.checked_add(amount).unwrap_or(Amount::MAX);
}

/// Genesis: creates a balance.
pub(crate) fn endow(exec: &mut Exec<'_>, address: &Address, amount: Amount) -> Done {
    supply::issue(exec, Place::of(address), amount)?;
    votes::update(exec, address, |account| {
        account.free = add(account.free, amount)?;
        Ok(())
    })
}

/// Checks that the transaction may run now: expiry, key, nonce, base fee. Leaves no trace on error.
pub(crate) fn authorise(state: &dyn StateRead, tx: &SignedTx, now_ms: u64, fee: Amount) -> Done {
    if now_ms >= tx.expires_at_ms {
        return Err(LedgerError::TransactionExpired { expired_at_ms: tx.expires_at_ms });
    }
    if let Auth::Session { account, key, .. } = &tx.auth {
        let key = session_key(state, account, key).ok_or(LedgerError::UnknownSessionKey)?;
        if now_ms >= key.expires_at_ms {
            return Err(LedgerError::SessionKeyExpired { expired_at_ms: key.expires_at_ms });
        }
    }
    let expected = nonce_next(state, tx)?;
    if tx.nonce != expected {
        return Err(LedgerError::WrongNonce { expected });
    }
    let free = account(state, &tx.sender()).free;
    if free < fee {
        return Err(LedgerError::BaseFeeUnpayable { fee, free });
    }
    if let Auth::Session { account, key, .. } = &tx.auth {
        let left = session_key(state, account, key).map_or(Amount::ZERO, |key| key.spend_left);
        if left < fee {
            return Err(LedgerError::SpendLimit { needed: fee, left });
        }
    }
    Ok(())
}

/// Uses up the nonce, and the base fee of a session key's limit: kept even if the call fails.
pub(crate) fn bump_nonce(exec: &mut Exec<'_>, tx: &SignedTx, fee: Amount) {
    match &tx.auth {
        Auth::Wallet { account: address, .. } => {
            let mut account = account(&exec.state, address);
            account.nonce += 1;
            ACCOUNTS.set(&mut exec.state, address, &account);
        }
        Auth::Session { account, key, .. } => {
            if let Some(mut stored) = session_key(&exec.state, account, key) {
                stored.nonce += 1;
                stored.spend_left = stored.spend_left.saturating_sub(fee);
                SESSION_KEYS.set(&mut exec.state, &(*account, *key), &stored);
            }
        }
    }
}

/// What a call takes out of the sender's free balance at most, as far as a session key's limit counts
/// it.
fn spend(exec: &Exec<'_>, sender: &Address, call: &Call) -> Amount {
    match call {
        Call::Transfer { amount, .. } | Call::Bond { amount } | Call::Delegate { amount, .. } => *amount,
        Call::OrderSubmit(order) => budgets::taken_from_balance(exec, sender, order),
        Call::AssetTransfer { asset: AssetId::Native, amount, .. } => *amount,
        Call::SharesBuy { max_total, .. } => *max_total,
        Call::PoolAdd { a: AssetId::Native, amount_a, .. } => *amount_a,
        Call::PoolAdd { b: AssetId::Native, amount_b, .. } => *amount_b,
        Call::Swap { asset_in: AssetId::Native, amount_in, .. } => *amount_in,
        _ => Amount::ZERO,
    }
}

/// Checks a session key's scope and takes the call's spending off its limit.
pub(crate) fn charge_session_key(exec: &mut Exec<'_>, tx: &SignedTx) -> Done {
    let Auth::Session { account, key, .. } = &tx.auth else { return Ok(()) };
    let mut stored = session_key(&exec.state, account, key).ok_or(LedgerError::UnknownSessionKey)?;
    if !stored.scope.allows(&tx.call) {
        return Err(LedgerError::OutOfScope);
    }
    let needed = spend(exec, account, &tx.call);
    stored.spend_left =
        stored.spend_left.checked_sub(needed).ok_or(LedgerError::SpendLimit { needed, left: stored.spend_left })?;
    if !needed.is_zero() {
        SESSION_KEYS.set(&mut exec.state, &(*account, *key), &stored);
    }
    Ok(())
}

/// [`Call::Transfer`].
pub(crate) fn transfer(exec: &mut Exec<'_>, from: Address, to: Address, amount: Amount) -> Done {
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let place = Place::of(&to);
    debit(exec, &from, amount, place)?;
    credit(exec, &to, amount, place);
    exec.emit(Event::Transferred { from, to, amount });
    Ok(())
}

/// [`Call::SessionKeyAdd`].
pub(crate) fn session_key_add(
    exec: &mut Exec<'_>,
    sender: Address,
    key: SessionPublicKey,
    scope: Scope,
    spend_limit: Amount,
    expires_at_ms: u64,
) -> Done {
    if session_key(&exec.state, &sender, &key).is_some() {
        return Err(LedgerError::SessionKeyExists);
    }
    if account(&exec.state, &sender).session_keys >= SESSION_KEYS_MAX {
        return Err(LedgerError::TooManySessionKeys { max: SESSION_KEYS_MAX });
    }
    if expires_at_ms <= exec.now() {
        return Err(LedgerError::SessionKeyExpired { expired_at_ms: expires_at_ms });
    }
    let deposit = costs::deposit(exec, &sender)?;
    let mut owner = account(&exec.state, &sender);
    owner.session_keys += 1;
    ACCOUNTS.set(&mut exec.state, &sender, &owner);
    // A key that is added again starts its nonce at the block time, so that transactions signed
    // for its earlier life can never run again.
    let nonce = if exec.block.height == 0 { 0 } else { exec.now() };
    let stored = SessionKey { account: sender, key, scope, spend_left: spend_limit, expires_at_ms, nonce, deposit };
    SESSION_KEYS.set(&mut exec.state, &(sender, key), &stored);
    exec.emit(Event::SessionKeyAdded { account: sender, key });
    Ok(())
}

/// [`Call::SessionKeyRevoke`].
pub(crate) fn session_key_revoke(exec: &mut Exec<'_>, sender: Address, key: SessionPublicKey) -> Done {
    let stored = session_key(&exec.state, &sender, &key).ok_or(LedgerError::UnknownSessionKey)?;
    let mut owner = account(&exec.state, &sender);
    owner.session_keys = owner.session_keys.saturating_sub(1);
    ACCOUNTS.set(&mut exec.state, &sender, &owner);
    SESSION_KEYS.remove(&mut exec.state, &(sender, key));
    costs::give_back(exec, &sender, stored.deposit);
    exec.emit(Event::SessionKeyRevoked { account: sender, key });
    Ok(())
}
