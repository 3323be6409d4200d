//! `althing asset`, `althing pool`: assets beside the native token, and the market. (G-4, E-2)

use crate::{
    calls::send,
    cli::{NodeUrl, Wallet},
    economy_cli::{AssetCommand, PoolCommand, Slippage},
    output::{self, table},
    roles::connect,
    units::{asset_amount, percent_of_whole, ppm_to_percent},
};
use althing_sdk::EconomyClient as _;
use althing_types::{Amount, AssetId, Call, Drip, Holding, MarketPool, PoolId, Ppm, api::SwapQuote};
use anyhow::{Context as _, Result};

/// Runs `althing asset …`.
///
/// # Errors
/// What a person can act on.
pub async fn asset(command: AssetCommand, json: bool) -> Result<()> {
    match command {
        AssetCommand::Transfer { asset, to, amount, wallet } => {
            let amount = asset_amount(asset, &amount)?;
            send(&wallet, json, |_| Call::AssetTransfer { asset, to, amount }).await.map(drop)
        }
        AssetCommand::List { address, node } => {
            let holdings = connect(&node.node).await?.holdings(address).await?;
            if json {
                return output::json(&holdings);
            }
            let row = |holding: &Holding| {
                let amount = |amount| in_units(holding.asset, amount);
                vec![holding.asset.to_string(), amount(holding.free), amount(holding.locked)]
            };
            table(&["ASSET", "FREE", "ON SALE OR STAKED"], &holdings.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
    }
}

/// So much of an asset without its name.
fn in_units(asset: AssetId, amount: Amount) -> String {
    match asset {
        AssetId::Shares(_) => amount.0.to_string(),
        _ => amount.to_string(),
    }
}

/// A pool by its id, or by its two assets.
///
/// # Errors
/// If the text is neither.
pub fn pool_id(text: &str) -> Result<PoolId> {
    match text.split_once('/') {
        Some((a, b)) => Ok(PoolId::of(a.parse()?, b.parse()?)),
        None => text.parse().context("a pool is an id or two assets, such as native/test:1"),
    }
}

/// The least to accept where so much would come out now.
fn least(amount: Amount, slippage: Slippage) -> Result<Amount> {
    let Ppm(lost) = percent_of_whole(slippage.slippage)?;
    Ok(amount.share(Ppm(Ppm::ONE.0 - lost)))
}

/// Runs `althing pool …`.
///
/// # Errors
/// What a person can act on.
pub async fn pool(command: PoolCommand, json: bool) -> Result<()> {
    let (wallet, call) = match command {
        PoolCommand::List { node } => return list(&node, json).await,
        PoolCommand::Show { pool, node } => {
            let pool = connect(&node.node).await?.pool(pool_id(&pool)?).await?;
            return output::data(json, &pool, show);
        }
        PoolCommand::Drip { node } => {
            let client = connect(&node.node).await?;
            let drip = client.drip().await?;
            let pools = client.pools().await?;
            return output::data(json, &drip, |drip| show_drip(drip, &pools));
        }
        PoolCommand::Quote { asset_in, amount, asset_out, node } => {
            let amount_in = asset_amount(asset_in, &amount)?;
            let quote = connect(&node.node).await?.quote(asset_in, amount_in, asset_out).await?;
            return output::data(json, &quote, show_quote);
        }
        PoolCommand::Add { asset: a, amount, other: b, other_amount, lp_min, wallet } => {
            let (amount_a, amount_b) = (asset_amount(a, &amount)?, asset_amount(b, &other_amount)?);
            (wallet, Call::PoolAdd { a, b, amount_a, amount_b, lp_min })
        }
        PoolCommand::Remove { pool, lp, slippage, wallet } => {
            let call = remove(&wallet, pool_id(&pool)?, lp, slippage).await?;
            (wallet, call)
        }
        PoolCommand::Swap { asset_in, amount, asset_out, out_min, slippage, wallet } => {
            let amount_in = asset_amount(asset_in, &amount)?;
            let out_min = match out_min {
                Some(out_min) => asset_amount(asset_out, &out_min)?,
                None => {
                    let quote = connect(&wallet.node.node).await?.quote(asset_in, amount_in, asset_out).await?;
                    least(quote.amount_out, slippage)?
                }
            };
            (wallet, Call::Swap { asset_in, amount_in, asset_out, out_min })
        }
        PoolCommand::Stake { pool, lp, wallet } => (wallet, Call::LpStake { pool: pool_id(&pool)?, lp }),
        PoolCommand::Unstake { pool, lp, wallet } => (wallet, Call::LpUnstake { pool: pool_id(&pool)?, lp }),
        PoolCommand::Claim { pool, wallet } => (wallet, Call::DripClaim { pool: pool_id(&pool)? }),
    };
    send(&wallet, json, |_| call).await.map(drop)
}

/// Gives liquidity shares back for at least their part of what the pool has now, less the slippage.
async fn remove(wallet: &Wallet, id: PoolId, lp: Amount, slippage: Slippage) -> Result<Call> {
    let pool = connect(&wallet.node.node).await?.pool(id).await?;
    let part = |reserve: Amount| least(reserve.mul_div_floor(lp.0, pool.lp.0).unwrap_or_default(), slippage);
    Ok(Call::PoolRemove { pool: id, lp, a_min: part(pool.reserve_a)?, b_min: part(pool.reserve_b)? })
}

async fn list(node: &NodeUrl, json: bool) -> Result<()> {
    let pools = connect(&node.node).await?.pools().await?;
    if json {
        return output::json(&pools);
    }
    let row = |pool: &MarketPool| {
        vec![
            pool.id.to_string(),
            pool.a.amount(pool.reserve_a).to_string(),
            pool.b.amount(pool.reserve_b).to_string(),
            pool.drip_weight.to_string(),
        ]
    };
    table(&["POOL", "RESERVE", "RESERVE", "DRIP WEIGHT"], &pools.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn show(pool: &MarketPool) {
    println!("pool         {}", pool.id);
    println!("reserves     {}", pool.a.amount(pool.reserve_a));
    println!("             {}", pool.b.amount(pool.reserve_b));
    println!("shares       {}, of which {} staked for the drip", pool.lp, pool.staked);
    println!("drip weight  {}", pool.drip_weight);
}

fn show_drip(drip: &Drip, pools: &[MarketPool]) {
    println!("not anybody's yet     {} ALTH", drip.unreleased);
    println!("earned, not claimed   {} ALTH", drip.owed);
    for pool in pools.iter().filter(|pool| drip.pools.contains(&pool.id)) {
        println!("pool {}  weight {}, {} staked", pool.id, pool.drip_weight, pool.staked);
    }
}

fn show_quote(quote: &SwapQuote) {
    println!("{}", quote.asset_out.amount(quote.amount_out));
    eprintln!(
        "for {}, of which {} stay in pool {} as its fee; {} % below its present price",
        quote.asset_in.amount(quote.amount_in),
        quote.asset_in.amount(quote.fee),
        quote.pool,
        ppm_to_percent(quote.price_impact.0)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_named_by_its_assets_or_its_id() {
        // G-4
        let id = PoolId::of(AssetId::Native, AssetId::Test(1));
        for text in ["native/test:1", "test:1/native", &id.to_string()] {
            assert_eq!(pool_id(text).unwrap(), id);
        }
        assert!(pool_id("gold").is_err() && pool_id("native/gold").is_err());
    }

    #[test]
    fn slippage_is_a_part_of_what_comes_out() {
        let slippage = |percent: &str| Slippage { slippage: percent.parse().unwrap() };
        assert_eq!(least(Amount(1_000), slippage("1")).unwrap(), Amount(990));
        assert_eq!(least(Amount(1_000), slippage("100")).unwrap(), Amount::ZERO);
        assert!(least(Amount(1_000), slippage("101")).is_err());
    }
}
