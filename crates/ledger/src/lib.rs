//! The deterministic state machine of the network: money, models, providers, orders, disputes, votes.
//!
//! One block goes in, with the state before it; writes, receipts and events come out. There is no
//! I/O, no clock, no randomness and no float here; time is the block's. A call runs on an overlay
//! that is dropped on error, so that a failed call leaves no trace but its nonce and its receipt.
//!
//! Start reading at [`execute_block`], then `orders`.

mod accounts;
mod assets;
mod budgets;
mod costs;
mod disputes;
mod due;
pub mod emission;
mod exec;
mod genesis;
mod governance;
mod holdings;
mod inputs;
pub mod invariants;
mod liquidity;
mod orders;
pub mod query;
mod registry;
mod shares;
mod staking;
pub mod state;
mod supply;
mod upgrades;
mod votes;

pub use costs::base_fee;
pub use exec::BlockContext;
pub use genesis::{GenesisError, genesis_state};
pub use governance::{
    CALLS_MAX as PROPOSAL_CALLS_MAX, DESCRIPTION_BYTES_MAX as PROPOSAL_DESCRIPTION_BYTES_MAX,
    LIVE_MAX as PROPOSALS_LIVE_MAX, TITLE_BYTES_MAX as PROPOSAL_TITLE_BYTES_MAX,
};
pub use liquidity::{DRIP_POOLS_MAX, LP_LOCKED, POOL_FEE};
pub use orders::seed_of;
pub use shares::SHARES_MAX;
pub use staking::{COMMISSION_DEFAULT, delegation_owed, pool_value};
pub use state::{StateRead, Writes, apply};
pub use supply::{COORDINATORS, TREASURY};
pub use upgrades::{PROTOCOL_VERSION, UpgradeNeeded, can_run};

use althing_types::{
    Address, Amount, Call, Event, LedgerError, OrderId, Params, ProposalText, SignedTx, TxReceipt, Upgrade,
};
use exec::{ChainClock, Done, Exec};
use state::{Map, Overlay};

/// Parameters in force.
const PARAMS: Map<(), Params> = Map::new(0x11);
/// The newest block's height and times.
const CLOCK: Map<(), ChainClock> = Map::new(0x12);

/// What executing a block gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOutput {
    /// Changes to the state before the block.
    pub writes: Writes,
    /// One receipt per transaction, in the same order.
    pub receipts: Vec<TxReceipt>,
    /// Everything that happened, in order: seeds drawn, calls, due work.
    pub events: Vec<Event>,
}

/// Executes one block on the state before it.
///
/// Signatures must have been checked ([`althing_types::tx::verify_all`]); whether keys are
/// registered, nonces fit and calls make sense is decided here. Every transaction gets a receipt.
///
/// # Panics
/// If the result does not conserve the supply (E-3), which would be a bug: a node must halt rather
/// than go on with money that does not add up.
pub fn execute_block(state: &dyn StateRead, block: &BlockContext, txs: &[SignedTx]) -> BlockOutput {
    let mut overlay = Overlay::new(state);
    let params = governance::params_for_block(&mut overlay);
    let mut output = BlockOutput::default();
    let clock = query::clock(state).advance(block.height, block.time_ms, params.active_step_ms_max);
    CLOCK.set(&mut overlay, &(), &clock);

    run_hook(&mut overlay, block, &params, &mut output, upgrades::begin_block);
    run_hook(&mut overlay, block, &params, &mut output, orders::draw_seeds);
    run_hook(&mut overlay, block, &params, &mut output, inputs::draw_samples);
    run_hook(&mut overlay, block, &params, &mut output, disputes::draw_juries);
    let mut units_left = params.block_units_max;
    for tx in txs {
        let receipt = execute_tx(&mut overlay, block, &params, tx, &mut units_left);
        output.events.extend(receipt.events.iter().cloned());
        output.receipts.push(receipt);
    }
    run_hook(&mut overlay, block, &params, &mut output, due::run);
    run_hook(&mut overlay, block, &params, &mut output, liquidity::drip_on);

    assert!(supply::conserved(&supply::totals(&overlay)), "block {} does not conserve the supply", block.height);
    output.writes = overlay.into_writes();
    output
}

/// Runs one of the hooks of a block on the block's overlay.
fn run_hook(
    overlay: &mut Overlay<'_>,
    block: &BlockContext,
    params: &Params,
    output: &mut BlockOutput,
    hook: fn(&mut Exec<'_>),
) {
    let mut exec = Exec::new(overlay, block, params);
    hook(&mut exec);
    output.events.append(&mut exec.events);
    let writes = exec.state.into_writes();
    overlay.absorb(writes);
}

/// Executes one transaction; on error only its nonce and its receipt remain.
fn execute_tx(
    overlay: &mut Overlay<'_>,
    block: &BlockContext,
    params: &Params,
    tx: &SignedTx,
    units_left: &mut u64,
) -> TxReceipt {
    let mut receipt = TxReceipt {
        id: tx.id(&block.chain),
        sender: tx.sender(),
        call: tx.call.name().into(),
        fee: Amount::ZERO,
        error: None,
        order: None,
        events: Vec::new(),
    };
    let fee = costs::base_fee_due(overlay, params, tx);
    let authorised = accounts::authorise(overlay, tx, block.time_ms, fee);
    // A block does bounded work: what does not fit leaves no trace, and can be sent again. (L-1)
    let fits = units_left.checked_sub(tx.call.units()).ok_or(LedgerError::BlockFull);
    let mut exec = Exec::new(overlay, block, params);
    match authorised.and(fits).and_then(|left| costs::charge(&mut exec, &tx.sender(), fee).map(|()| left)) {
        Ok(left) => *units_left = left,
        Err(error) => {
            receipt.error = Some(error);
            return receipt;
        }
    }
    receipt.fee = fee;
    receipt.events = std::mem::take(&mut exec.events);
    accounts::bump_nonce(&mut exec, tx, fee);
    let writes = exec.state.into_writes();
    overlay.absorb(writes);

    let mut exec = Exec::new(overlay, block, params);
    let done = accounts::charge_session_key(&mut exec, tx).and_then(|()| dispatch(&mut exec, tx.sender(), &tx.call));
    match done {
        Ok(order) => {
            receipt.order = order;
            receipt.events.append(&mut exec.events);
            let writes = exec.state.into_writes();
            overlay.absorb(writes);
        }
        Err(error) => receipt.error = Some(error),
    }
    receipt
}

/// Every call, in one match.
fn dispatch(exec: &mut Exec<'_>, sender: Address, call: &Call) -> Done<Option<OrderId>> {
    match call.clone() {
        Call::Transfer { to, amount } => accounts::transfer(exec, sender, to, amount)?,
        Call::SessionKeyAdd { key, scope, spend_limit, expires_at_ms } => {
            accounts::session_key_add(exec, sender, key, scope, spend_limit, expires_at_ms)?;
        }
        Call::SessionKeyRevoke { key } => accounts::session_key_revoke(exec, sender, key)?,
        Call::Bond { amount } => staking::bond(exec, sender, amount)?,
        Call::Unbond { amount } => staking::unbond(exec, sender, amount)?,
        Call::ModelRegister { name, package, fee, payee, verification } => {
            registry::register(exec, sender, name, package, fee, payee, verification)?;
        }
        Call::ModelTermsSet { model, fee, payee } => registry::set_terms(exec, sender, model, fee, payee)?,
        Call::ModelSupport { models, endpoint } => registry::support(exec, sender, models, endpoint)?,
        Call::OrderSubmit(submit) => return orders::submit(exec, sender, submit).map(Some),
        Call::OrderCommit { order, commitment } => orders::commit(exec, sender, order, commitment)?,
        Call::OrderReveal { order, output, output_size, salt } => {
            orders::reveal(exec, sender, order, output, output_size, salt)?;
        }
        Call::OrderAccept { order } => orders::accept(exec, sender, order)?,
        Call::OrderComplete { order, output, output_size } => {
            orders::complete(exec, sender, order, output, output_size)?;
        }
        Call::OrderCancel { order } => orders::cancel(exec, sender, order)?,
        Call::Agree { order, output } => orders::agree(exec, sender, order, output)?,
        Call::Contest { order, ballot } => disputes::contest(exec, sender, order, ballot)?,
        Call::Vote { order, refute } => disputes::vote(exec, sender, order, refute)?,
        Call::VoteCommit { order, ballot } => disputes::vote_commit(exec, sender, order, ballot)?,
        Call::VoteOpen { order, answer, salt } => disputes::vote_open(exec, sender, order, answer, salt)?,
        Call::OrderClaim { order } => orders::claim_by_call(exec, order)?,
        Call::Delegate { provider, amount } => staking::delegate(exec, sender, provider, amount)?,
        Call::Undelegate { provider, amount } => staking::undelegate(exec, sender, provider, amount, None)?,
        Call::DelegationMove { from, to, amount } => staking::undelegate(exec, sender, from, amount, Some(to))?,
        Call::DelegationClaim { provider } => staking::claim_delegation(exec, sender, provider)?,
        Call::CommissionSet { commission } => staking::set_commission(exec, sender, commission)?,
        Call::ModelRewardSet { model, reward } => registry::set_reward(exec, sender, model, reward)?,
        Call::VotesDelegate { to } => votes::delegate(exec, sender, to)?,
        Call::ProposalCreate { title, description, calls } => {
            governance::create(exec, sender, ProposalText { title, description, calls })?;
        }
        Call::ProposalVote { proposal, choice } => governance::vote(exec, sender, proposal, choice)?,
        Call::ProposalQueue { proposal } => governance::queue(exec, proposal)?,
        Call::ProposalExecute { proposal } => governance::execute(exec, proposal)?,
        Call::ProposalCancel { proposal } => governance::cancel(exec, sender, proposal)?,
        Call::ParamsSet { changes } => governance::set_params(exec, sender, changes)?,
        Call::UpgradeSchedule { version, height } => upgrades::schedule(exec, sender, Upgrade { version, height })?,
        Call::UpgradeCancel => upgrades::cancel(exec, sender)?,
        Call::AssetTransfer { asset, to, amount } => assets::transfer(exec, sender, asset, to, amount)?,
        Call::DaoCreate { model, shares } => shares::create(exec, sender, model, shares)?,
        Call::SharesClaim { model } => shares::claim(exec, sender, model)?,
        Call::SaleOpen { model, shares, price } => shares::sale_open(exec, sender, model, shares, price)?,
        Call::SaleClose { model } => shares::sale_close(exec, sender, model)?,
        Call::SharesBuy { model, seller, shares, max_total } => {
            shares::buy(exec, sender, model, seller, shares, max_total)?;
        }
        Call::DaoPropose { model, fee, payee } => shares::propose(exec, sender, model, fee, payee)?,
        Call::DaoVote { model, approve } => shares::vote(exec, sender, model, approve)?,
        Call::PoolAdd { a, b, amount_a, amount_b, lp_min } => {
            liquidity::pool_add(exec, sender, (a, amount_a), (b, amount_b), lp_min)?;
        }
        Call::PoolRemove { pool, lp, a_min, b_min } => liquidity::pool_remove(exec, sender, pool, lp, a_min, b_min)?,
        Call::Swap { asset_in, amount_in, asset_out, out_min } => {
            liquidity::swap(exec, sender, asset_in, amount_in, asset_out, out_min)?;
        }
        Call::LpStake { pool, lp } => liquidity::stake(exec, sender, pool, lp)?,
        Call::LpUnstake { pool, lp } => liquidity::unstake(exec, sender, pool, lp)?,
        Call::DripClaim { pool } => liquidity::claim(exec, sender, pool)?,
        Call::PoolDripSet { pool, weight } => liquidity::set_drip(exec, sender, pool, weight)?,
        Call::InputConfirm { order } => inputs::confirm(exec, sender, order)?,
        Call::BudgetClose { order } => budgets::close(exec, sender, order)?,
    }
    Ok(None)
}

/// Whether a transaction could be included now or soon: what a mempool asks.
///
/// # Errors
/// The error that executing it would give for its authorisation. A nonce in the near future is fine.
pub fn check_for_mempool(state: &dyn StateRead, tx: &SignedTx) -> Result<(), LedgerError> {
    let fee = costs::base_fee_due(state, &query::params(state), tx);
    match accounts::authorise(state, tx, query::clock(state).time_ms, fee) {
        Err(LedgerError::WrongNonce { expected }) if tx.nonce > expected && tx.nonce - expected < 256 => Ok(()),
        verdict => verdict,
    }
}
