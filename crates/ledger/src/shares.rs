//! Model DAOs: models whose fees belong to the holders of a fixed number of shares. (T-14)
//!
//! Terms: a **DAO** is a model that its owner turned into shares, once and for ever. Its **payee** is
//! an address without a key; the model's fee of an order that names it goes to the **holders**, in
//! proportion to their shares and exactly to the unit: each share earns the whole number of base
//! units that a fee gives it, and the **carry**, what is left over, joins the next fee. A holder's
//! part is settled whenever its shares change, and paid when it claims.
//!
//! Shares can be sent, offered at a fixed price (a **sale**: they earn and vote for the seller until
//! somebody buys them) and put into pools of the market ([`crate::liquidity`]).
//!
//! The holders vote on the model's **terms**, one proposal at a time, with the shares that they held
//! at the end of the block before it: shares that move later do not vote twice. For that, a holder's
//! record keeps what it held before the newest block that changed it, and what it may vote with once
//! shares moved while a proposal is open. (Who sold everything in the very block of the proposal has
//! no record any more and no vote; nobody else has those votes either.)

use crate::{
    accounts, costs, due,
    exec::{Done, Exec},
    registry,
    state::{Map, StateRead},
    supply::{self, Place},
};
use althing_types::{
    Address, Amount, AssetId, Dao, DaoProposal, Event, LedgerError, ModelId, OrderId, Ppm, Sale, Shareholder,
};

/// Most shares of one DAO.
pub const SHARES_MAX: u64 = 1_000_000_000;

const DAOS: Map<ModelId, Dao> = Map::new(0x72);
const HOLDERS: Map<(ModelId, Address), Shareholder> = Map::new(0x73);
/// The same by holder.
const BY_HOLDER: Map<(Address, ModelId), ()> = Map::new(0x74);
/// DAOs by the address that collects their fees.
const BY_PAYEE: Map<Address, ModelId> = Map::new(0x75);

// ---- queries ----

/// The DAO of a model.
pub fn dao(state: &dyn StateRead, model: &ModelId) -> Option<Dao> {
    DAOS.get(state, model)
}

/// DAOs in the order of their models' ids.
pub fn all(state: &dyn StateRead, after: Option<ModelId>, limit: usize) -> Vec<Dao> {
    let entries = match after {
        None => DAOS.first(state, limit),
        Some(after) => DAOS.after(state, &after, limit),
    };
    entries.into_iter().map(|(_, dao)| dao).collect()
}

/// What an account has to do with a model's shares.
pub fn holder(state: &dyn StateRead, model: &ModelId, holder: &Address) -> Option<Shareholder> {
    HOLDERS.get(state, &(*model, *holder))
}

/// The holders of a model's shares, in address order.
pub fn holders(state: &dyn StateRead, model: &ModelId, after: Option<Address>, limit: usize) -> Vec<Shareholder> {
    let entries = match after {
        None => HOLDERS.range(state, &(*model, Address::ZERO), &(*model, Address([0xff; 20])), limit),
        Some(after) => HOLDERS.after(state, &(*model, after), limit),
    };
    entries.into_iter().filter(|((of, _), _)| of == model).map(|(_, holder)| holder).collect()
}

/// The shares of an account, by model.
pub fn held_by(state: &dyn StateRead, account: &Address, limit: usize) -> Vec<Shareholder> {
    let (from, to) = ((*account, ModelId::ZERO), (*account, ModelId([0xff; 32])));
    let found = BY_HOLDER.range(state, &from, &to, limit).into_iter();
    found.filter_map(|((address, model), ())| holder(state, &model, &address)).collect()
}

/// What a holder earned and can claim.
pub fn claimable(dao: &Dao, holder: &Shareholder) -> Amount {
    // The sum of a DAO's fees may pass 2^128 in time, so it wraps; what one share earned since its
    // holder was last settled is still owed to it, part of the supply, and so the true difference.
    let grown = Amount(dao.per_share.0.wrapping_sub(holder.per_share_paid.0));
    let earned = grown.mul_div_floor(holder.shares.into(), 1).expect("what is owed is part of the supply, which fits");
    holder.owed.checked_add(earned).expect("what is owed is part of the supply, which fits")
}

/// How many shares a holder votes with: those at the end of the block before the proposal. (T-14)
pub fn weight(proposal: &DaoProposal, holder: &Shareholder) -> u64 {
    match holder.weight {
        Some((number, shares)) if number == proposal.number => shares,
        // Its shares did not change after the proposal, else it would have the weight noted.
        _ if holder.changed_height >= proposal.opened_height => holder.before,
        _ => holder.shares,
    }
}

fn get(exec: &Exec<'_>, model: &ModelId) -> Done<Dao> {
    dao(&exec.state, model).ok_or(LedgerError::NoDao)
}

fn holder_or_new(exec: &Exec<'_>, dao: &Dao, address: &Address) -> Shareholder {
    let fresh =
        || Shareholder { model: dao.model, holder: *address, per_share_paid: dao.per_share, ..Shareholder::default() };
    holder(&exec.state, &dao.model, address).unwrap_or_else(fresh)
}

fn store_dao(exec: &mut Exec<'_>, dao: &Dao) {
    DAOS.set(&mut exec.state, &dao.model, dao);
}

/// Stores a holder; one that has nothing leaves, except while its vote may still count.
fn store(exec: &mut Exec<'_>, dao: &Dao, holder: &Shareholder) {
    let (model, address) = (holder.model, holder.holder);
    if holder.shares == 0 && holder.owed.is_zero() && dao.proposal.is_none() {
        HOLDERS.remove(&mut exec.state, &(model, address));
        BY_HOLDER.remove(&mut exec.state, &(address, model));
    } else {
        HOLDERS.set(&mut exec.state, &(model, address), holder);
        BY_HOLDER.set(&mut exec.state, &(address, model), &());
    }
}

// ---- movements ----

/// Takes a holder's part of what was earned; to be done before its shares change.
fn settle(dao: &Dao, holder: &mut Shareholder) {
    holder.owed = claimable(dao, holder);
    holder.per_share_paid = dao.per_share;
}

/// Gives a holder another number of shares.
fn change(exec: &mut Exec<'_>, dao: &Dao, mut holder: Shareholder, shares: u64) {
    settle(dao, &mut holder);
    if let Some(proposal) = &dao.proposal {
        holder.weight = Some((proposal.number, weight(proposal, &holder)));
    }
    if holder.changed_height < exec.block.height {
        holder.before = holder.shares;
        holder.changed_height = exec.block.height;
    }
    holder.shares = shares;
    store(exec, dao, &holder);
}

/// Moves shares that are not on sale.
pub(crate) fn transfer(exec: &mut Exec<'_>, model: ModelId, from: &Address, to: &Address, amount: Amount) -> Done {
    let dao = get(exec, &model)?;
    let giver = holder_or_new(exec, &dao, from);
    let asset = AssetId::Shares(model);
    let free = giver.free();
    let Some(count) = u64::try_from(amount.0).ok().filter(|count| *count <= free) else {
        return Err(LedgerError::InsufficientAsset { asset, needed: amount, free: Amount(free.into()) });
    };
    if count == 0 || from == to {
        return Ok(());
    }
    let left = giver.shares.checked_sub(count).ok_or(LedgerError::Overflow)?;
    let taker = holder_or_new(exec, &dao, to);
    let grown = taker.shares.checked_add(count).ok_or(LedgerError::Overflow)?;
    change(exec, &dao, giver, left);
    change(exec, &dao, taker, grown);
    Ok(())
}

/// Takes all that a holder earned; the caller pays it on from [`Place::Owed`].
pub(crate) fn take_earnings(exec: &mut Exec<'_>, model: &ModelId, address: &Address) -> Amount {
    let Some(mut dao) = dao(&exec.state, model) else { return Amount::ZERO };
    let Some(mut holder) = holder(&exec.state, model, address) else { return Amount::ZERO };
    settle(&dao, &mut holder);
    let amount = std::mem::take(&mut holder.owed);
    if amount.is_zero() {
        return amount;
    }
    dao.owed = dao.owed.checked_sub(amount).expect("a DAO owes what its holders can claim");
    store_dao(exec, &dao);
    store(exec, &dao, &holder);
    amount
}

/// Pays a model's fee to the holders of a DAO, if that is whom the payee stands for. (T-13, T-14)
pub(crate) fn accrue(exec: &mut Exec<'_>, payee: &Address, fee: Amount, from: Place, order: OrderId) -> bool {
    let Some(mut dao) = BY_PAYEE.get(&exec.state, payee).and_then(|model| dao(&exec.state, &model)) else {
        return false;
    };
    if fee.is_zero() {
        return true;
    }
    let fits = "a DAO is owed a part of the supply, which fits";
    let sum = fee.checked_add(dao.carry).expect(fits).0;
    let shares = u128::from(dao.shares);
    dao.per_share = Amount(dao.per_share.0.wrapping_add(sum / shares));
    dao.carry = Amount(sum % shares);
    dao.owed = dao.owed.checked_add(fee).expect(fits);
    dao.earned = dao.earned.checked_add(fee).unwrap_or(Amount::MAX);
    store_dao(exec, &dao);
    supply::shift(exec, from, Place::Owed, fee);
    exec.emit(Event::ShareholdersEarned { model: dao.model, amount: fee, order });
    true
}

// ---- calls ----

/// [`althing_types::Call::DaoCreate`]: orders submitted from now on pay the holders. (T-13, T-14)
pub(crate) fn create(exec: &mut Exec<'_>, sender: Address, id: ModelId, shares: u64) -> Done {
    let model = registry::model(&exec.state, &id).ok_or(LedgerError::UnknownModel(id))?;
    if model.owner != sender {
        return Err(LedgerError::NotOwner);
    }
    if dao(&exec.state, &id).is_some() {
        return Err(LedgerError::DaoExists);
    }
    if shares == 0 || shares > SHARES_MAX {
        return Err(LedgerError::SharesOutOfRange { max: SHARES_MAX });
    }
    let deposit = costs::deposit(exec, &sender)?;
    let payee = id.dao_payee();
    let dao = Dao {
        model: id,
        payee,
        shares,
        per_share: Amount::ZERO,
        carry: Amount::ZERO,
        owed: Amount::ZERO,
        earned: Amount::ZERO,
        proposals: 0,
        proposal: None,
        deposit,
    };
    store_dao(exec, &dao);
    BY_PAYEE.set(&mut exec.state, &payee, &id);
    let owner = holder_or_new(exec, &dao, &sender);
    change(exec, &dao, owner, shares);
    exec.emit(Event::DaoCreated { model: id, owner: sender, shares, payee });
    registry::change_terms(exec, model, None, payee);
    Ok(())
}

/// [`althing_types::Call::SharesClaim`]. (T-14)
pub(crate) fn claim(exec: &mut Exec<'_>, sender: Address, model: ModelId) -> Done {
    get(exec, &model)?;
    let amount = take_earnings(exec, &model, &sender);
    if amount.is_zero() {
        return Err(LedgerError::NothingToClaim);
    }
    accounts::credit_earned(exec, &sender, amount, Amount::ZERO, Place::Owed);
    exec.emit(Event::ShareEarningsPaid { model, holder: sender, amount });
    Ok(())
}

/// [`althing_types::Call::SaleOpen`]: replaces the own sale. (T-14)
pub(crate) fn sale_open(exec: &mut Exec<'_>, sender: Address, model: ModelId, shares: u64, price: Amount) -> Done {
    let dao = get(exec, &model)?;
    if shares == 0 || price.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let mut seller = holder_or_new(exec, &dao, &sender);
    if shares > seller.shares {
        return Err(LedgerError::NotEnoughShares { available: seller.shares });
    }
    seller.sale = Some(Sale { shares, price });
    store(exec, &dao, &seller);
    exec.emit(Event::SaleOpened { model, seller: sender, shares, price });
    Ok(())
}

/// [`althing_types::Call::SaleClose`]. (T-14)
pub(crate) fn sale_close(exec: &mut Exec<'_>, sender: Address, model: ModelId) -> Done {
    let dao = get(exec, &model)?;
    let mut seller = holder_or_new(exec, &dao, &sender);
    if seller.sale.take().is_none() {
        return Err(LedgerError::NoSale);
    }
    store(exec, &dao, &seller);
    exec.emit(Event::SaleClosed { model, seller: sender });
    Ok(())
}

/// [`althing_types::Call::SharesBuy`]: the seller is paid at once. (T-14)
pub(crate) fn buy(
    exec: &mut Exec<'_>,
    buyer: Address,
    model: ModelId,
    seller: Address,
    shares: u64,
    max_total: Amount,
) -> Done {
    let dao = get(exec, &model)?;
    if shares == 0 {
        return Err(LedgerError::ZeroAmount);
    }
    let mut offer = holder_or_new(exec, &dao, &seller);
    let sale = offer.sale.ok_or(LedgerError::NoSale)?;
    if shares > sale.shares {
        return Err(LedgerError::SaleTooSmall { left: sale.shares });
    }
    let total = sale.price.mul_div_floor(shares.into(), 1).ok_or(LedgerError::Overflow)?;
    if total > max_total {
        return Err(LedgerError::SharesAboveMaxTotal { total, max_total });
    }
    let place = Place::of(&seller);
    accounts::debit(exec, &buyer, total, place)?;
    accounts::credit(exec, &seller, total, place);
    let left = sale.shares - shares;
    offer.sale = (left > 0).then_some(Sale { shares: left, price: sale.price });
    store(exec, &dao, &offer);
    transfer(exec, model, &seller, &buyer, Amount(shares.into()))?;
    exec.emit(Event::SharesSold { model, seller, buyer, shares, total });
    Ok(())
}

/// [`althing_types::Call::DaoPropose`]: the vote begins at once. (T-14, T-18)
pub(crate) fn propose(
    exec: &mut Exec<'_>,
    sender: Address,
    model: ModelId,
    fee: Amount,
    payee: Option<Address>,
) -> Done {
    let mut dao = get(exec, &model)?;
    if let Some(open) = &dao.proposal {
        return Err(LedgerError::DaoProposalOpen { ends_ms: open.ends_ms });
    }
    let number = dao.proposals + 1;
    let ends_ms = exec.active_now() + exec.params.dao_voting_ms;
    let (ppm, one) = (u128::from(exec.params.dao_quorum.0), u128::from(Ppm::ONE.0));
    let quorum = u64::try_from((u128::from(dao.shares) * ppm).div_ceil(one)).expect("a share of a 64-bit number");
    let proposal = DaoProposal {
        number,
        proposer: sender,
        fee,
        payee,
        opened_height: exec.block.height,
        ends_ms,
        yes: 0,
        no: 0,
        quorum,
    };
    if weight(&proposal, &holder_or_new(exec, &dao, &sender)) == 0 {
        return Err(LedgerError::NotShareholder);
    }
    dao.proposals = number;
    dao.proposal = Some(proposal);
    store_dao(exec, &dao);
    due::DAO_VOTE.set(&mut exec.state, &(ends_ms, model), &());
    exec.emit(Event::DaoProposed { model, number, proposer: sender, fee, payee, ends_ms });
    Ok(())
}

/// [`althing_types::Call::DaoVote`]: votes are final; once the others cannot change the result, the
/// vote ends. So nobody can keep a majority from voting by proposals of its own. (T-14)
pub(crate) fn vote(exec: &mut Exec<'_>, sender: Address, model: ModelId, approve: bool) -> Done {
    let mut dao = get(exec, &model)?;
    let proposal = match &mut dao.proposal {
        Some(proposal) if exec.active_now() < proposal.ends_ms => proposal,
        // The due queue may lag: whether a vote is over is decided by its time alone.
        _ => return Err(LedgerError::NoDaoProposal),
    };
    let mut voter = holder(&exec.state, &model, &sender).ok_or(LedgerError::NotShareholder)?;
    let shares = weight(proposal, &voter);
    if shares == 0 {
        return Err(LedgerError::NotShareholder);
    }
    if voter.voted == proposal.number {
        return Err(LedgerError::DaoVoteExists);
    }
    let number = proposal.number;
    voter.voted = number;
    voter.weight = Some((number, shares));
    let side = if approve { &mut proposal.yes } else { &mut proposal.no };
    *side = side.checked_add(shares).ok_or(LedgerError::Overflow)?;
    let (yes, yes_max) = (proposal.yes, dao.shares.saturating_sub(proposal.no));
    let won = yes >= proposal.quorum && yes > dao.shares.saturating_sub(yes);
    let lost = yes_max <= proposal.no || yes_max < proposal.quorum;
    store_dao(exec, &dao);
    store(exec, &dao, &voter);
    exec.emit(Event::DaoVoted { model, number, holder: sender, approve, shares });
    if won || lost {
        close(exec, dao);
    }
    Ok(())
}

// ---- hooks ----

/// Due: the vote on a model's terms is over. (T-14)
pub(crate) fn count(exec: &mut Exec<'_>, model: ModelId) {
    let Some(dao) = dao(&exec.state, &model) else { return };
    // A vote that was decided early may have been followed by another, which has its own entry.
    if dao.proposal.as_ref().is_some_and(|proposal| exec.active_now() >= proposal.ends_ms) {
        close(exec, dao);
    }
}

/// Ends the open vote; terms that were accepted hold for orders submitted later. (T-13, T-14)
fn close(exec: &mut Exec<'_>, mut dao: Dao) {
    let Some(proposal) = dao.proposal.take() else { return };
    store_dao(exec, &dao);
    let DaoProposal { number, yes, no, .. } = proposal;
    let accepted = yes > no && yes >= proposal.quorum;
    exec.emit(Event::DaoProposalClosed { model: dao.model, number, accepted, yes, no });
    if let (true, Some(model)) = (accepted, registry::model(&exec.state, &dao.model)) {
        registry::change_terms(exec, model, Some(proposal.fee), proposal.payee.unwrap_or(dao.payee));
    }
}
