//! From an order to the text of its answer, fetched by its CID from those who stand for it.

use althing_runtime::ChatOutput;
use althing_sdk::{ClientError, Content, ContentError, LedgerClient, Source};
use althing_types::{Order, OrderId};

/// Largest output that is fetched, bytes.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("order {0} has no answer")]
    None(OrderId),
    #[error("the answer of order {order} has {size} bytes, at most {OUTPUT_BYTES_MAX} are fetched")]
    TooLarge { order: OrderId, size: u64 },
    /// The order's right answer, but no text.
    #[error("the model declines: {message} ({code})")]
    Declined { code: String, message: String },
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The endpoints of whoever answered the order or agreed with the answer.
async fn sources(client: &dyn LedgerClient, order: &Order) -> Vec<Source> {
    let solver = order.solutions.first().map(|solution| solution.provider);
    let mut sources = Vec::new();
    for account in solver.into_iter().chain(order.agreements.iter().map(|agreement| agreement.provider)) {
        if let Ok(provider) = client.provider(account).await
            && !provider.endpoint.is_empty()
        {
            sources.push(Source::of_stranger(provider.endpoint));
        }
    }
    sources
}

/// The text of the answer that stands for an order. Its bytes are those that the ledger names.
///
/// # Errors
/// [`AnswerError`]; [`AnswerError::Content`] if nobody serves it at the moment.
pub async fn fetch_text(
    client: &dyn LedgerClient,
    content: &dyn Content,
    order: &Order,
) -> Result<String, AnswerError> {
    let solution = order.solutions.first().ok_or(AnswerError::None(order.id))?;
    if solution.output_size > OUTPUT_BYTES_MAX {
        return Err(AnswerError::TooLarge { order: order.id, size: solution.output_size });
    }
    let sources = sources(client, order).await;
    let bytes = content.get(&solution.output, 0..=solution.output_size, &sources).await?;
    match ChatOutput::parse(&bytes) {
        Ok(ChatOutput::Answer { text, .. }) => Ok(text),
        Ok(ChatOutput::Refusal { error }) => Err(AnswerError::Declined { code: error.code, message: error.message }),
        Err(error) => Err(AnswerError::Declined { code: "no_chat_output".into(), message: error.to_string() }),
    }
}
