//! `althing dao`: models whose fees belong to the holders of their shares. (T-14)

use crate::{
    calls::send,
    cli::Wallet,
    economy_cli::{DaoCommand, YesNo},
    output::{self, table},
    roles::connect,
};
use althing_sdk::{EconomyClient, LedgerClient};
use althing_types::{
    Address, Amount, Call, Dao, ModelId,
    api::{HolderView, Status},
};
use anyhow::{Context as _, Result};

/// The id of a model that is given by name or id.
///
/// # Errors
/// If there is no such model.
pub async fn model_id(client: &dyn EconomyClient, model: &str) -> Result<ModelId> {
    Ok(client.model(model).await?.id)
}

async fn id_for(wallet: &Wallet, model: &str) -> Result<ModelId> {
    model_id(&*connect(&wallet.node.node).await?, model).await
}

/// Runs `althing dao …`.
///
/// # Errors
/// What a person can act on.
pub async fn dao(command: DaoCommand, json: bool) -> Result<()> {
    let (wallet, call) = match command {
        DaoCommand::List { node } => {
            let daos = connect(&node.node).await?.daos().await?;
            return output::data(json, &*daos, list);
        }
        DaoCommand::Show { model, node } => {
            let client = connect(&node.node).await?;
            let dao = client.dao(model_id(&*client, &model).await?).await?;
            let status = client.status().await?;
            return output::data(json, &dao, |dao| show(dao, &status));
        }
        DaoCommand::Holders { model, node } => {
            let client = connect(&node.node).await?;
            let found = client.dao_holders(model_id(&*client, &model).await?).await?;
            return output::data(json, &*found, holders);
        }
        DaoCommand::Create { model, shares, wallet } => {
            let model = id_for(&wallet, &model).await?;
            (wallet, Call::DaoCreate { model, shares })
        }
        DaoCommand::Claim { model, wallet } => {
            let model = id_for(&wallet, &model).await?;
            (wallet, Call::SharesClaim { model })
        }
        DaoCommand::Sell { model, shares, price, wallet } => {
            let model = id_for(&wallet, &model).await?;
            (wallet, Call::SaleOpen { model, shares, price })
        }
        DaoCommand::Unsell { model, wallet } => {
            let model = id_for(&wallet, &model).await?;
            (wallet, Call::SaleClose { model })
        }
        DaoCommand::Buy { model, shares, from, max_total, wallet } => {
            let model = id_for(&wallet, &model).await?;
            let max_total = match max_total {
                Some(max_total) => max_total,
                None => price_of(&wallet, model, from, shares).await?,
            };
            (wallet, Call::SharesBuy { model, seller: from, shares, max_total })
        }
        DaoCommand::Propose { model, fee, payee, wallet } => {
            let model = id_for(&wallet, &model).await?;
            (wallet, Call::DaoPropose { model, fee, payee })
        }
        DaoCommand::Vote { model, answer, wallet } => {
            let model = id_for(&wallet, &model).await?;
            (wallet, Call::DaoVote { model, approve: answer == YesNo::Yes })
        }
    };
    send(&wallet, json, |_| call).await.map(drop)
}

/// What so many shares cost by a seller's offer.
async fn price_of(wallet: &Wallet, model: ModelId, seller: Address, shares: u64) -> Result<Amount> {
    let holders = connect(&wallet.node.node).await?.dao_holders(model).await?;
    let offer = holders.iter().find(|holder| holder.record.holder == seller).and_then(|holder| holder.record.sale);
    let offer = offer.with_context(|| format!("{seller} offers no shares of this model: see `althing dao holders`"))?;
    offer.price.mul_div_floor(shares.into(), 1).context("so many shares cost more than there is")
}

fn list(daos: &[Dao]) {
    let row = |dao: &Dao| {
        let proposal = dao.proposal.as_ref().map_or("-".into(), |proposal| proposal.number.to_string());
        vec![dao.model.to_string(), dao.shares.to_string(), dao.earned.to_string(), dao.owed.to_string(), proposal]
    };
    table(&["MODEL", "SHARES", "EARNED", "OWED", "PROPOSAL"], &daos.iter().map(row).collect::<Vec<_>>());
}

fn show(dao: &Dao, status: &Status) {
    println!("model     {}", dao.model);
    println!("shares    {}", dao.shares);
    println!("payee     {}", dao.payee);
    println!("earned    {} ALTH, of which {} not claimed yet", dao.earned, dao.owed);
    let Some(proposal) = &dao.proposal else { return };
    let payee = proposal.payee.map_or("the holders".into(), |payee| payee.to_string());
    println!("proposal  {}: a fee of {} ALTH a run, paid to {payee}", proposal.number, proposal.fee);
    println!("          {} for, {} against, {} needed for it", proposal.yes, proposal.no, proposal.quorum);
    println!("          the vote ends {}", crate::units::until(proposal.ends_ms, status.active_ms));
}

fn holders(holders: &[HolderView]) {
    let row = |holder: &HolderView| {
        let sale = holder.record.sale;
        vec![
            holder.record.holder.to_string(),
            holder.record.shares.to_string(),
            holder.claimable.to_string(),
            sale.map_or("-".into(), |sale| sale.shares.to_string()),
            sale.map_or("-".into(), |sale| sale.price.to_string()),
        ]
    };
    table(&["HOLDER", "SHARES", "CAN CLAIM", "ON SALE", "PRICE"], &holders.iter().map(row).collect::<Vec<_>>());
}
