//! `althing emission`, `scenario`, `profile`: trying the economics, most of it without a network.

use crate::{
    cli::{EmissionCommand, ProfileCommand, ScenarioCommand},
    dev::read_profile,
    output::{self, table},
    roles::connect,
};
use althing_ledger::emission::{multiplier, reward, target};
use althing_scenario::{Day, Report, decade};
use althing_sdk::LedgerClient as _;
use althing_types::{Amount, Params, params::PARAMS};
use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use std::path::Path;

const DAYS_OF_DECADE: u64 = 3_650;

/// Runs `althing emission …`.
///
/// # Errors
/// If the profile cannot be read or the picture not be written.
pub async fn emission(command: EmissionCommand, json: bool) -> Result<()> {
    match command {
        EmissionCommand::Show { profile, elapsed, supply, cap, halving } => {
            let mut params = read_profile(&profile, false)?.params;
            params.emission_cap = cap.unwrap_or(params.emission_cap);
            if let Some(halving) = halving {
                params.emission_halving_ms =
                    halving.checked_mul(1_000).filter(|ms| *ms > 0).context("--halving is a number of seconds")?;
            }
            let elapsed_ms = elapsed.checked_mul(1_000).context("--elapsed is a number of seconds")?;
            let target = target(params.emission_cap, params.emission_halving_ms, elapsed_ms);
            let multiplier = multiplier(target, supply);
            let reward = reward(params.reward_base, params.emission_cap, target, supply);
            if json {
                return output::json(&serde_json::json!({
                    "target": target, "multiplier": multiplier, "reward": reward,
                }));
            }
            println!("target      {target} ALTH");
            println!("multiplier  {multiplier}");
            println!("reward      {reward} ALTH");
            Ok(())
        }
        EmissionCommand::Chart { profile, out, seed } => {
            chart(&read_profile(&profile, false)?.params, &out, seed, json)
        }
        EmissionCommand::Now { node } => {
            let now = connect(&node.node).await?.emission().await?;
            if json {
                return output::json(&now);
            }
            println!("since genesis  {}", seconds(now.elapsed_ms));
            println!("cap            {} ALTH", now.cap);
            println!("target         {} ALTH", now.target);
            println!("supply         {} ALTH", now.supply);
            println!("multiplier     {}", now.multiplier);
            println!("reward         {} ALTH", now.reward);
            Ok(())
        }
    }
}

/// Plays a decade and draws it.
fn chart(params: &Params, out: &Path, seed: u64, json: bool) -> Result<()> {
    let bar = ProgressBar::new(DAYS_OF_DECADE);
    bar.set_style(ProgressStyle::with_template("{bar:40} day {pos} of {len}")?);
    let mut days: Vec<Day> = Vec::new();
    decade(params, DAYS_OF_DECADE, seed, |day| {
        bar.inc(1);
        days.push(day);
    });
    bar.finish_and_clear();
    draw(params, &days, out).with_context(|| format!("cannot draw into {}", out.display()))?;
    let off = |day: &Day| day.supply.0.abs_diff(day.target.0) * 10_000 / day.target.0.max(1);
    let worst = days.iter().filter(|day| day.number >= 30).max_by_key(|day| off(day));
    let (Some(worst), Some(last)) = (worst, days.last()) else { bail!("a decade has days") };
    let percent = |day: &Day| format!("{}.{:02}", off(day) / 100, off(day) % 100);
    if json {
        return output::json(&serde_json::json!({
            "picture": out, "seed": seed, "days": DAYS_OF_DECADE, "supply": last.supply, "target": last.target,
            "claims": days.iter().map(|day| day.claims).sum::<u64>(),
            "deviation_percent_max": percent(worst), "deviation_max_day": worst.number,
        }));
    }
    println!("{}", out.display());
    eprintln!("after ten years {} ALTH of a target of {} ALTH", last.supply, last.target);
    eprintln!("from day 30 on at most {} % off target, on day {}", percent(worst), worst.number);
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // a picture
fn tokens(amount: Amount) -> f64 {
    amount.0 as f64 / Amount::TOKEN.0 as f64
}

/// Above the supply and its target, below how far the one is from the other.
#[allow(clippy::cast_precision_loss)] // a picture
fn draw(params: &Params, days: &[Day], out: &Path) -> Result<()> {
    let root = SVGBackend::new(out, (960, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = root.split_vertically(400);
    let years = |day: &Day| day.number as f64 / 365.0;
    let cap = tokens(params.emission_cap);
    let (line, dashed) = (RGBColor(31, 119, 180), RGBColor(214, 39, 40));

    let mut chart = ChartBuilder::on(&above)
        .caption("Supply over ten years of uneven demand", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(0f64..10f64, 0f64..cap * 1.05)?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc("years")
        .y_desc("ALTH")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    chart
        .draw_series(LineSeries::new(days.iter().map(|day| (years(day), tokens(day.supply))), line.stroke_width(2)))?
        .label("supply")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], line.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(days.iter().map(|day| (years(day), tokens(day.target))), dashed))?
        .label("target")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], dashed));
    chart
        .draw_series(LineSeries::new([(0.0, cap), (10.0, cap)], BLACK.mix(0.4)))?
        .label("cap")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], BLACK.mix(0.4)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE)
        .draw()?;

    let mut chart = ChartBuilder::on(&below)
        .caption("Distance from target, %", ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(0f64..10f64, -12f64..12f64)?;
    chart.configure_mesh().max_light_lines(1).x_desc("years").y_desc("%").draw()?;
    let off = |day: &Day| (tokens(day.supply) / tokens(day.target).max(f64::MIN_POSITIVE) - 1.0) * 100.0;
    let shown = days.iter().filter(|day| day.number >= 30).map(|day| (years(day), off(day)));
    chart.draw_series(LineSeries::new(shown, line))?;
    for limit in [-10.0, 10.0] {
        chart.draw_series(LineSeries::new([(0.0, limit), (10.0, limit)], dashed))?;
    }
    root.present()?;
    Ok(())
}

/// Runs `althing scenario …`.
///
/// # Errors
/// If the scenario makes no sense, or does not come out as it says.
pub fn scenario(command: ScenarioCommand, json: bool) -> Result<()> {
    let ScenarioCommand::Run { files } = command;
    let mut failed = 0usize;
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let scenario = althing_scenario::parse(&text).with_context(|| file.display().to_string())?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let report = althing_scenario::run(&scenario, directory).with_context(|| file.display().to_string())?;
        failed += usize::from(!report.passed);
        if json {
            output::json(&report)?;
        } else {
            tell(&report);
        }
    }
    if failed > 0 {
        bail!("{failed} of {} scenarios did not come out as they say", files.len());
    }
    Ok(())
}

fn tell(report: &Report) {
    println!("{}\n", report.title);
    for step in &report.steps {
        for call in &step.calls {
            let result = call.error.as_ref().map_or(String::new(), |error| format!("  ✗ {error}"));
            println!("{:>10}  {:<12}  {}{result}", seconds(step.at_ms), call.by, call.summary);
        }
    }
    println!();
    let rows: Vec<_> = report
        .accounts
        .iter()
        .map(|(name, view)| {
            vec![
                name.clone(),
                view.account.free.to_string(),
                view.bond.to_string(),
                view.account.earned.fees.to_string(),
                view.account.earned.rewards.to_string(),
                view.account.earned.slashes.to_string(),
            ]
        })
        .collect();
    table(&["ACCOUNT", "FREE", "BOND", "FROM FEES", "FROM REWARDS", "FROM SLASHES"], &rows);
    println!();
    for (name, order) in &report.orders {
        let state = serde_json::to_value(&order.state).unwrap_or_default();
        println!("order {name}: {}", state["state"].as_str().unwrap_or("?"));
    }
    println!("{} ALTH issued; invariants: {}", report.supply.issued, report.invariants);
    for failure in &report.failures {
        println!("✗ step {}: {}", failure.step, failure.what);
    }
    println!("{}", if report.passed { "✓ as expected" } else { "✗ not as expected" });
}

/// Milliseconds as people read them.
fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

/// Runs `althing profile …`.
///
/// # Errors
/// If the profile cannot be read.
pub fn profile(command: ProfileCommand, json: bool) -> Result<()> {
    let ProfileCommand::Show { profile, dev } = command;
    let params = read_profile(&profile, dev)?.params;
    if json {
        return output::json(&params);
    }
    let value = |name: &str| {
        let values = serde_json::to_value(&params).unwrap_or_default();
        values[name].as_str().map_or_else(|| values[name].to_string(), str::to_owned)
    };
    let row = |info: &althing_types::params::ParamInfo| {
        vec![info.name.into(), value(info.name), info.rules.into(), info.meaning.into()]
    };
    table(&["PARAMETER", "VALUE", "RULES", "MEANING"], &PARAMS.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
