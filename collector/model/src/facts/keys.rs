//! Which attribute means what: one table for OpenInference, OpenTelemetry GenAI, OpenLLMetry and the Vercel AI SDK.
//!
//! The number beside a meaning is its alias' rank: of several present the lowest is read. OpenInference comes first, then
//! GenAI as it is, then as it was, then vendors. A key is looked up by its first word, so those of other libraries cost little.

use super::stored::Text;

/// What an attribute of a span means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'k> {
    Text(Text, u8),
    Tokens(Count, u8),
    /// Says what kind of span it is.
    Kind(Kind),
    /// The span is about a tool, a retrieval or an embedding, whatever model it names.
    NotACall,
    /// JSON of the request's parameters.
    Parameters,
    Streaming(u8),
    /// Time to the first token, in units of so many nanoseconds.
    FirstToken(u64),
    ErrorType,
    HttpStatus,
    FinishReasons(u8),
    Tags,
    Metadata,
    /// A field of what would stand in `metadata`, spread over attributes.
    Property(&'k str),
    /// A list of messages as JSON.
    Messages(Side, u8),
    /// A part of a message spread over attributes.
    Part(Side, &'k str),
    /// A plain text.
    Whole(Side, u8),
    /// A JSON text around what was said.
    Wrapped(Side, u8),
    Mime(Side),
    /// A list of tool calls as JSON.
    ToolCalls,
}

impl Key<'_> {
    /// Whether a span that is no root is looked at for its sake: it may make the span a call, or name something.
    pub(super) fn tells(&self) -> bool {
        match self {
            Self::Kind(_) | Self::Tags | Self::Metadata | Self::Property(_) => true,
            Self::Text(text, _) => {
                matches!(text, Text::RequestModel | Text::Session | Text::User | Text::PromptVersion)
            }
            _ => false,
        }
    }
}

/// Into the span, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

/// The token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Prompt,
    Completion,
    Total,
    CacheRead,
    CacheWrite,
    AudioInput,
    Reasoning,
    AudioOutput,
}

/// Whose word it is on the kind of span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    OpenInference,
    Operation,
    RequestType,
    Vercel,
    Traceloop,
}

/// The meaning of a key, if it has one.
pub(super) fn meaning(key: &str) -> Option<Key<'_>> {
    use Key::{Property, Text as T};
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    match first {
        "llm" => llm(rest),
        "gen_ai" => gen_ai(rest),
        "ai" => vercel(rest),
        "openinference" => (rest == "span.kind").then_some(Key::Kind(Kind::OpenInference)),
        "input" => io(Side::Input, rest),
        "output" => io(Side::Output, rest),
        "session" => (rest == "id").then_some(T(Text::Session, 0)),
        "user" => (rest == "id").then_some(T(Text::User, 0)),
        "enduser" => (rest == "id").then_some(T(Text::User, 1)),
        "tag" => (rest == "tags").then_some(Key::Tags),
        "metadata" => Some(if rest.is_empty() { Key::Metadata } else { Property(rest) }),
        "prompt" => (rest == "version").then_some(T(Text::PromptVersion, 0)),
        "prompt_version" => rest.is_empty().then_some(T(Text::PromptVersion, 1)),
        "traceloop" => traceloop(rest),
        "operation" => (rest == "name").then_some(Key::Kind(Kind::Vercel)),
        "error" => (rest == "type").then_some(Key::ErrorType),
        "http" => matches!(rest, "response.status_code" | "status_code").then_some(Key::HttpStatus),
        _ => None,
    }
}

fn io(side: Side, rest: &str) -> Option<Key<'_>> {
    match rest {
        "value" => Some(Key::Whole(side, 0)),
        "mime_type" => Some(Key::Mime(side)),
        _ => None,
    }
}

fn llm(rest: &str) -> Option<Key<'_>> {
    use Count::{AudioInput, AudioOutput, CacheRead, CacheWrite, Completion, Prompt, Reasoning, Total};
    use Key::{Text as T, Tokens};
    if let Some(part) = rest.strip_prefix("input_messages.") {
        return Some(Key::Part(Side::Input, part));
    }
    if let Some(part) = rest.strip_prefix("output_messages.") {
        return Some(Key::Part(Side::Output, part));
    }
    Some(match rest {
        "response.model_name" => T(Text::Model, 0),
        "model_name" => T(Text::Model, 1),
        "request.model_name" => T(Text::RequestModel, 0),
        "invocation_parameters" => Key::Parameters,
        "provider" => T(Text::Provider, 0),
        "system" => T(Text::Provider, 1),
        "token_count.prompt" => Tokens(Prompt, 0),
        "token_count.completion" => Tokens(Completion, 0),
        "token_count.total" => Tokens(Total, 0),
        "token_count.prompt_details.cache_read" => Tokens(CacheRead, 0),
        "token_count.prompt_details.cache_input" => Tokens(CacheRead, 1),
        "token_count.prompt_details.cache_write" => Tokens(CacheWrite, 0),
        "token_count.prompt_details.audio" => Tokens(AudioInput, 0),
        "token_count.completion_details.reasoning" => Tokens(Reasoning, 0),
        "token_count.completion_details.audio" => Tokens(AudioOutput, 0),
        "usage.prompt_tokens" => Tokens(Prompt, 3),
        "usage.completion_tokens" => Tokens(Completion, 3),
        "usage.total_tokens" => Tokens(Total, 2),
        "usage.reasoning_tokens" => Tokens(Reasoning, 3),
        "finish_reason" => T(Text::FinishReason, 0),
        "response.finish_reason" => T(Text::FinishReason, 4),
        "response.stop_reason" => T(Text::FinishReason, 5),
        "is_streaming" => Key::Streaming(2),
        "user" => T(Text::User, 4),
        "request.type" => Key::Kind(Kind::RequestType),
        "prompt_template.version" => T(Text::PromptVersion, 2),
        "prompts" => Key::Messages(Side::Input, 4),
        _ => return None,
    })
}

fn gen_ai(rest: &str) -> Option<Key<'_>> {
    use Count::{CacheRead, CacheWrite, Completion, Prompt, Reasoning, Total};
    use Key::{Text as T, Tokens};
    if let Some(tokens) = rest.strip_prefix("usage.") {
        return Some(match tokens {
            "input_tokens" => Tokens(Prompt, 1),
            "output_tokens" => Tokens(Completion, 1),
            "prompt_tokens" => Tokens(Prompt, 2),
            "completion_tokens" => Tokens(Completion, 2),
            "total_tokens" => Tokens(Total, 1),
            "cache_read.input_tokens" => Tokens(CacheRead, 2),
            "cache_read_input_tokens" => Tokens(CacheRead, 3),
            "cache_creation.input_tokens" => Tokens(CacheWrite, 1),
            "cache_creation_input_tokens" => Tokens(CacheWrite, 2),
            "reasoning.output_tokens" => Tokens(Reasoning, 1),
            "reasoning_tokens" => Tokens(Reasoning, 2),
            _ => return None,
        });
    }
    Some(match rest {
        "operation.name" => Key::Kind(Kind::Operation),
        "request.model" => T(Text::RequestModel, 2),
        "response.model" => T(Text::Model, 2),
        "response.id" => T(Text::ResponseId, 0),
        "response.finish_reasons" => Key::FinishReasons(1),
        "response.finish_reason" => T(Text::FinishReason, 2),
        "response.stop_reason" => T(Text::FinishReason, 3),
        "response.time_to_first_chunk" => Key::FirstToken(1_000_000_000),
        "provider.name" => T(Text::Provider, 2),
        "system" => T(Text::Provider, 3),
        "request.stream" => Key::Streaming(0),
        "is_streaming" => Key::Streaming(1),
        "conversation.id" => T(Text::Session, 1),
        "user" => T(Text::User, 3),
        "prompt.version" => T(Text::PromptVersion, 3),
        "input.messages" => Key::Messages(Side::Input, 0),
        "output.messages" => Key::Messages(Side::Output, 0),
        "prompt" => Key::Messages(Side::Input, 2),
        "completion" => Key::Messages(Side::Output, 2),
        "tool.name" | "tool.call.id" | "embeddings.dimension.count" => Key::NotACall,
        _ => {
            if let Some(part) = rest.strip_prefix("prompt.") {
                Key::Part(Side::Input, part)
            } else if let Some(part) = rest.strip_prefix("completion.") {
                Key::Part(Side::Output, part)
            } else if rest.starts_with("retrieval.") {
                Key::NotACall
            } else {
                return None;
            }
        }
    })
}

fn vercel(rest: &str) -> Option<Key<'_>> {
    use Count::{CacheRead, Completion, Prompt, Reasoning, Total};
    use Key::{Text as T, Tokens};
    if let Some(name) = rest.strip_prefix("telemetry.metadata.") {
        return Some(Key::Property(name));
    }
    Some(match rest {
        "operationId" => Key::Kind(Kind::Vercel),
        "model.id" => T(Text::RequestModel, 3),
        "model.provider" => T(Text::Provider, 4),
        "response.model" => T(Text::Model, 3),
        "response.id" => T(Text::ResponseId, 1),
        "response.finishReason" | "finishReason" => T(Text::FinishReason, 6),
        "response.msToFirstChunk" | "stream.msToFirstChunk" => Key::FirstToken(1_000_000),
        "response.text" => Key::Whole(Side::Output, 1),
        "result.text" => Key::Whole(Side::Output, 2),
        "response.object" | "result.object" => Key::Wrapped(Side::Output, 0),
        "response.toolCalls" | "result.toolCalls" => Key::ToolCalls,
        "prompt.messages" => Key::Messages(Side::Input, 1),
        "prompt" => Key::Wrapped(Side::Input, 0),
        "usage.promptTokens" | "usage.inputTokens" => Tokens(Prompt, 4),
        "usage.completionTokens" | "usage.outputTokens" => Tokens(Completion, 4),
        "usage.totalTokens" => Tokens(Total, 3),
        "usage.cachedInputTokens" => Tokens(CacheRead, 4),
        "usage.reasoningTokens" => Tokens(Reasoning, 4),
        _ => return None,
    })
}

fn traceloop(rest: &str) -> Option<Key<'_>> {
    use Key::Text as T;
    if let Some(name) = rest.strip_prefix("association.properties.") {
        return Some(Key::Property(name));
    }
    Some(match rest {
        "span.kind" => Key::Kind(Kind::Traceloop),
        "prompt.version" => T(Text::PromptVersion, 4),
        "prompt.version_name" => T(Text::PromptVersion, 5),
        "prompt.version_hash" => T(Text::PromptVersion, 6),
        "entity.input" => Key::Wrapped(Side::Input, 1),
        "entity.output" => Key::Wrapped(Side::Output, 1),
        _ => return None,
    })
}

/// What a field of `metadata` means besides standing there; ranks come after those of attributes.
pub(super) fn metadata_meaning(field: &str) -> Option<(Text, u8)> {
    Some(match field {
        "session_id" => (Text::Session, 10),
        "thread_id" => (Text::Session, 11),
        "conversation_id" => (Text::Session, 12),
        "user_id" => (Text::User, 10),
        "prompt_version" => (Text::PromptVersion, 10),
        _ => return None,
    })
}

/// What a property spread over attributes means; what is listed here does not stand in the row's `user` metadata as well.
pub(super) fn property_meaning(name: &str) -> Option<(Text, u8)> {
    Some(match name {
        "session_id" | "sessionId" | "session.id" => (Text::Session, 2),
        "thread_id" | "threadId" => (Text::Session, 3),
        "conversation_id" | "conversationId" => (Text::Session, 4),
        "user_id" | "userId" | "user.id" => (Text::User, 2),
        "prompt_version" | "promptVersion" => (Text::PromptVersion, 9),
        _ => return None,
    })
}
