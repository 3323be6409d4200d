//! `althing account`, `althing delegation`: what an account has, and stake behind providers.

use crate::{
    calls::send,
    cli::AccountCommand,
    economy_cli::DelegationCommand,
    output::{self, table},
    roles::connect,
    units::{percent_of_whole, until},
};
use althing_sdk::{Delegations, EconomyClient as _, LedgerClient as _};
use althing_types::{
    Amount, Call,
    api::{AccountView, DelegationView, LeavingView},
};
use anyhow::Result;

/// Runs `althing account …`.
///
/// # Errors
/// What a person can act on.
pub async fn account(command: AccountCommand, json: bool) -> Result<()> {
    match command {
        AccountCommand::Show { address, node } => {
            let client = connect(&node.node).await?;
            let view = client.account(address).await?;
            if json {
                return output::json(&view);
            }
            show(&view, client.status().await?.time_ms);
            Ok(())
        }
        AccountCommand::Bond { amount, wallet } => send(&wallet, json, |_| Call::Bond { amount }).await.map(drop),
        AccountCommand::Unbond { amount, wallet } => send(&wallet, json, |_| Call::Unbond { amount }).await.map(drop),
        AccountCommand::Commission { percent, wallet } => {
            let commission = percent_of_whole(percent)?;
            send(&wallet, json, |_| Call::CommissionSet { commission }).await.map(drop)
        }
    }
}

/// One row for each place where units of the account are. (E-4)
fn places(view: &AccountView, now_ms: u64) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut row = |place: &str, amount: Amount, free: String| {
        if !amount.is_zero() || place == "free" {
            rows.push(vec![place.to_owned(), amount.to_string(), free]);
        }
    };
    row("free", view.account.free, "now".into());
    let bonded = view.bond.saturating_sub(view.bond_free);
    row("bond", view.bond_free, "after `account unbond` and the unbonding time".into());
    row("bond, reserved", bonded, "when outstanding claims are settled".into());
    for part in &view.unbonding {
        row("unbonding", part.amount, until(part.free_at_ms, now_ms));
    }
    for delegation in &view.delegations {
        let provider = delegation.provider;
        row(&format!("delegated to {provider}"), delegation.value, "after `delegation remove`".into());
        for part in &delegation.leaving {
            row(&format!("leaving {provider}"), part.value, leaves(part, now_ms));
        }
        let earned = Amount(delegation.fees.0.saturating_add(delegation.rewards.0));
        row(&format!("earned at {provider}"), earned, "by `delegation claim`".into());
    }
    for order in &view.escrowed {
        row(&format!("fee of order {}", order.order.short()), order.fee, "back if nobody solves it".into());
    }
    for budget in &view.budgets {
        let label = format!("budget of order {}", budget.order.short());
        row(&label, budget.left, format!("by `order budget-close`, or {}", until(budget.until_ms, now_ms)));
    }
    for (kind, amount) in view.deposits.kinds() {
        row(&format!("deposits: {kind}"), amount, "when what they stand behind is gone".into());
    }
    for shares in &view.shares {
        row(&format!("earned by shares of {}", shares.model), shares.claimable, "by `dao claim`".into());
    }
    for stake in &view.liquidity {
        row(&format!("earned in pool {}", stake.pool), stake.claimable, "by `pool claim`".into());
    }
    rows
}

fn leaves(part: &LeavingView, now_ms: u64) -> String {
    let time = until(part.free_at_ms, now_ms);
    part.to.map_or(time.clone(), |to| format!("{time}, to {to}"))
}

fn show(view: &AccountView, now_ms: u64) {
    table(&["WHERE", "ALTH", "FREE"], &places(view, now_ms));
    println!();
    println!("in all   {} ALTH", view.total());
    let earned = &view.account.earned;
    println!("earned   {} ALTH in fees, {} minted, {} of slashes", earned.fees, earned.rewards, earned.slashes);
    let delegate = view.account.voting.delegate.map_or(String::new(), |to| format!("; {to} votes with its own units"));
    println!("votes    {}{delegate}", view.power);
    println!("nonce    {}", view.account.nonce);
    for shares in &view.shares {
        println!("shares   {} of model {}, of which {} on sale", shares.shares, shares.model, shares.on_sale);
    }
    for stake in &view.liquidity {
        println!("staked   {} liquidity shares of pool {}", stake.staked, stake.pool);
    }
    if !view.escrowed_complete {
        eprintln!("note: the network has too many open orders to look through all of them; some fees may be missing");
    }
}

/// Runs `althing delegation …`.
///
/// # Errors
/// What a person can act on.
pub async fn delegation(command: DelegationCommand, json: bool) -> Result<()> {
    let (wallet, call) = match command {
        DelegationCommand::Add { provider, amount, wallet } => (wallet, Call::Delegate { provider, amount }),
        DelegationCommand::Remove { provider, amount, wallet } => (wallet, Call::Undelegate { provider, amount }),
        DelegationCommand::Move { from, to, amount, wallet } => (wallet, Call::DelegationMove { from, to, amount }),
        DelegationCommand::Claim { provider, wallet } => (wallet, Call::DelegationClaim { provider }),
        DelegationCommand::List { by, to, node } => {
            let which = by.map(Delegations::By).or(to.map(Delegations::To));
            let which = which.ok_or_else(|| anyhow::anyhow!("say --by ADDRESS or --to ADDRESS"))?;
            let client = connect(&node.node).await?;
            let found = client.delegations(which).await?;
            if json {
                return output::json(&found);
            }
            list(&found, client.status().await?.time_ms);
            return Ok(());
        }
    };
    send(&wallet, json, |_| call).await.map(drop)
}

fn list(delegations: &[DelegationView], now_ms: u64) {
    let row = |delegation: &DelegationView| {
        let leaving = delegation.leaving.iter().map(|part| format!("{} {}", part.value, leaves(part, now_ms)));
        vec![
            delegation.delegator.to_string(),
            delegation.provider.to_string(),
            delegation.value.to_string(),
            delegation.fees.to_string(),
            delegation.rewards.to_string(),
            leaving.collect::<Vec<_>>().join("; "),
        ]
    };
    let rows: Vec<_> = delegations.iter().map(row).collect();
    table(&["DELEGATOR", "PROVIDER", "ALTH", "FROM FEES", "FROM REWARDS", "LEAVING"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use althing_types::{
        Account, Address, Budget,
        api::{Deposits, EscrowedFee},
    };

    #[test]
    fn every_unit_of_an_account_is_in_one_row() {
        // E-4
        let (one, to) = (Amount::TOKEN, Some(Address([3; 20])));
        let view = AccountView {
            address: Address([1; 20]),
            account: Account { free: one, ..Account::default() },
            power: one,
            bond: Amount::tokens(5),
            reserved: Amount::tokens(2),
            bond_free: Amount::tokens(3),
            unbonding: vec![althing_types::object::Unbonding { amount: one, free_at_ms: 60_000 }],
            delegations: vec![DelegationView {
                delegator: Address([1; 20]),
                provider: Address([2; 20]),
                value: one,
                leaving: vec![LeavingView { value: one, free_at_ms: 120_000, to }],
                fees: one,
                rewards: one,
                deposit: one,
            }],
            escrowed: vec![EscrowedFee { order: Default::default(), fee: one, deadline_ms: 9 }],
            escrowed_complete: true,
            budgets: vec![Budget {
                order: Default::default(),
                client: Default::default(),
                left: one,
                spent: one,
                until_ms: 9,
                deposit: one,
            }],
            deposits: Deposits { delegations: one, ..Deposits::default() },
            shares: Vec::new(),
            liquidity: Vec::new(),
        };
        let rows = places(&view, 0);
        let listed: Amount = rows.iter().map(|row| row[1].parse::<Amount>().unwrap()).sum();
        assert_eq!((listed, view.total()), (Amount::tokens(14), Amount::tokens(14)));
        assert!(rows.iter().any(|row| row[0].starts_with("unbonding") && row[2] == "in 1 min 0 s"));
        assert!(rows.iter().any(|row| row[2].ends_with(&format!(", to {}", Address([3; 20])))));
    }
}
