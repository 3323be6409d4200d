//! Signing and sending calls, and which command sends which call.

use crate::{
    cli::Wallet,
    economy_cli::CallCommand,
    output::{self, spinner, table},
    roles::connect,
};
use althing_sdk::{LedgerClient as _, Sender, Signer as _, SystemClock, WalletSigner};
use althing_types::{Address, Call, api::Included};
use anyhow::{Context as _, Result};
use std::{io::Read as _, sync::Arc};

/// What sends each call of the ledger; `call send` sends all of them.
pub const CALL_COMMANDS: &[(&str, &str)] = &[
    ("transfer", "althing transfer"),
    ("session_key_add", "althing key create, althing key add"),
    ("session_key_revoke", "althing key revoke"),
    ("bond", "althing account bond"),
    ("unbond", "althing account unbond"),
    ("model_register", "althing model register"),
    ("model_terms_set", "althing model terms"),
    ("model_support", "sent by the provider daemon"),
    ("order_submit", "althing order submit; sent by the gateway"),
    ("order_commit", "sent by the provider daemon"),
    ("order_reveal", "sent by the provider daemon"),
    ("order_accept", "sent by the provider daemon"),
    ("order_complete", "sent by the provider daemon"),
    ("order_cancel", "althing order cancel"),
    ("agree", "sent by the provider daemon"),
    ("contest", "althing dispute open; sent by the provider daemon"),
    ("vote", "althing dispute vote; sent by the provider daemon"),
    ("vote_commit", "althing dispute vote; sent by the provider daemon"),
    ("vote_open", "althing dispute reveal; sent by the provider daemon"),
    ("order_claim", "althing order claim"),
    ("delegate", "althing delegation add"),
    ("undelegate", "althing delegation remove"),
    ("delegation_move", "althing delegation move"),
    ("delegation_claim", "althing delegation claim"),
    ("commission_set", "althing account commission"),
    ("model_reward_set", "by proposal: althing proposal create --reward"),
    ("votes_delegate", "althing votes delegate"),
    ("proposal_create", "althing proposal create"),
    ("proposal_vote", "althing proposal vote"),
    ("proposal_queue", "althing proposal queue"),
    ("proposal_execute", "althing proposal execute"),
    ("proposal_cancel", "althing proposal cancel"),
    ("params_set", "by proposal: althing proposal create --set"),
    ("upgrade_schedule", "by proposal: althing proposal create --upgrade"),
    ("upgrade_cancel", "by proposal: althing proposal create --call '{\"call\":\"upgrade_cancel\"}'"),
    ("asset_transfer", "althing asset transfer"),
    ("dao_create", "althing dao create"),
    ("shares_claim", "althing dao claim"),
    ("sale_open", "althing dao sell"),
    ("sale_close", "althing dao unsell"),
    ("shares_buy", "althing dao buy"),
    ("dao_propose", "althing dao propose"),
    ("dao_vote", "althing dao vote"),
    ("pool_add", "althing pool add"),
    ("pool_remove", "althing pool remove"),
    ("swap", "althing pool swap"),
    ("lp_stake", "althing pool stake"),
    ("lp_unstake", "althing pool unstake"),
    ("drip_claim", "althing pool claim"),
    ("pool_drip_set", "by proposal: althing proposal create --drip"),
    ("input_confirm", "by coordinators: althing node"),
    ("budget_close", "althing order budget-close"),
];

/// Signs and sends a call, and says what came of it.
///
/// # Errors
/// If there is no key, no node, or the ledger refuses the call.
pub async fn send(wallet: &Wallet, json: bool, call: impl FnOnce(Address) -> Call) -> Result<Included> {
    let signer = Arc::new(WalletSigner::read(&wallet.wallet)?);
    let call = call(signer.account());
    eprintln!("{}", call.summary());
    let client = connect(&wallet.node.node).await?;
    let chain = client.status().await?.chain;
    let sender = Sender::new(client, Arc::new(SystemClock), signer, chain);
    let bar = spinner("waiting for a block");
    let included = sender.send(call).await;
    bar.finish_and_clear();
    let included = included?;
    if json {
        output::json(&included)?;
    } else {
        eprintln!("done in block {}: transaction {}", included.height, included.receipt.id);
    }
    Ok(included)
}

/// Reads a call from JSON; what is wrong says where to find the names.
///
/// # Errors
/// If the text is not a call.
pub fn read_call(text: &str) -> Result<Call> {
    serde_json::from_str(text)
        .with_context(|| format!("{:?} is not a call: `althing call list` has their names", shortened(text)))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Runs `althing call …`.
///
/// # Errors
/// If the text is no call, or it cannot be sent.
pub async fn run(command: CallCommand, json: bool) -> Result<()> {
    match command {
        CallCommand::Send { call_json, wallet } => {
            let text = match call_json.as_str() {
                "-" => {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text).context("cannot read the call from stdin")?;
                    text
                }
                _ => call_json,
            };
            let call = read_call(&text)?;
            send(&wallet, json, |_| call).await.map(drop)
        }
        CallCommand::List => {
            if json {
                let list = CALL_COMMANDS.iter().map(|(call, sent_by)| serde_json::json!({"call": call, "by": sent_by}));
                return output::json(&list.collect::<Vec<_>>());
            }
            let row = |(call, by): &(&str, &str)| vec![(*call).to_owned(), (*by).to_owned()];
            table(&["CALL", "SENT BY"], &CALL_COMMANDS.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn every_call_has_its_row() {
        let rows: Vec<_> = CALL_COMMANDS.iter().map(|(call, _)| *call).collect();
        assert_eq!(rows, Call::NAMES);
    }

    #[test]
    fn every_command_of_the_table_exists() {
        let cli = Cli::command();
        for (call, by) in CALL_COMMANDS {
            let commands: Vec<_> = by.split("althing ").skip(1).collect();
            assert!(!commands.is_empty() || by.contains("daemon"), "{call}: {by}");
            for command in commands {
                let mut words = command.split([' ', ',', ';']).take_while(|word| !word.is_empty());
                let noun = words.next().and_then(|noun| cli.find_subcommand(noun));
                let noun = noun.unwrap_or_else(|| panic!("{call}: {command}"));
                let verb = words.next().map(|verb| noun.find_subcommand(verb));
                let verb = verb.unwrap_or(Some(noun)).unwrap_or_else(|| panic!("{call}: {command}"));
                for option in words.filter_map(|word| word.strip_prefix("--")) {
                    let known = verb.get_arguments().any(|argument| argument.get_long() == Some(option));
                    assert!(known, "{call}: {command}");
                }
            }
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_call_is_read_from_json_and_a_wrong_one_is_explained() {
        let call = read_call(r#"{"call":"proposal_vote","proposal":7,"choice":"for"}"#).unwrap();
        assert_eq!(call.summary(), "Vote for proposal 7");
        let error = format!("{:#}", read_call(r#"{"call":"fly"}"#).unwrap_err());
        assert!(error.contains("althing call list") && error.contains("fly"), "{error}");
    }
}
