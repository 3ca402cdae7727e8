//! Verdicts in words and in JSON.

use serde_json::Value;
use serde_json::json;

use crate::delivery::counts::gap_name;
use crate::delivery::explain::Because;
use crate::delivery::explain::Frame;
use crate::delivery::explain::Verdict;
use crate::delivery::index::Mismatch;
use crate::server::token::TokenError;
use crate::tenancy::principal::ChannelAccess;
use crate::tenancy::principal::Principal;

/// Puts a verdict into JSON, with one sentence for people.
pub fn verdict(verdict: &Verdict, principal: &Principal) -> Value {
    let (name, sentence) = words(verdict, principal);
    let mut told = json!({
        "verdict": name,
        "sentence": sentence,
        "tenant": principal.tenant.as_str(),
    });
    match verdict {
        Verdict::Denied(denied) => told["claims"] = claims(&denied.claims(), principal),
        Verdict::Delivered { frame, unsent_bytes } => {
            told["frame"] = frame_json(*frame);
            told["unsent_bytes"] = json!(unsent_bytes);
        }
        Verdict::BeforeStart { start } => told["start"] = json!(start.as_u64()),
        Verdict::NotYetRead { place, because } => {
            told["because"] = json!(because_name(*because));
            told["cursor"] = json!(place.map(|place| place.cursor.as_u64()));
            told["position"] = json!(place.map(|place| place.told.as_u64()));
            told["served"] = json!(place.map(|place| place.served.as_u64()));
        }
        Verdict::InGap { from, to, reason } => {
            told["gap"] = json!({
                "from": from.as_u64(), "to": to.as_u64(), "reason": gap_name(*reason),
            });
        }
        Verdict::Gone { oldest, frame } => {
            told["oldest"] = json!(oldest.as_u64());
            told["frame"] = frame_json(*frame);
        }
        Verdict::NotWritten { end } => told["end"] = json!(end.as_u64()),
        Verdict::NotMatched(why) => told["predicate"] = json!(predicate(*why)),
        Verdict::NotSubscribed | Verdict::Matches | Verdict::Unclassified | Verdict::NoRecord => {}
    }
    told
}

fn words(verdict: &Verdict, principal: &Principal) -> (&'static str, String) {
    let tenant = &principal.tenant;
    match verdict {
        Verdict::Denied(denied) => ("denied", format!("the client may not read it: {denied}")),
        Verdict::NotSubscribed => {
            let text = "the connection does not follow the channel with these keys";
            ("not_subscribed", text.to_owned())
        }
        Verdict::Delivered { frame: Some(frame), unsent_bytes } => {
            let (from, to) = (frame.from, frame.to);
            let unsent = match unsent_bytes {
                0 => "and written to the socket".to_owned(),
                bytes => format!("and {bytes} bytes of the connection wait to be written"),
            };
            ("delivered", format!("put on its way in the frame [{from}, {to}), {unsent}"))
        }
        Verdict::Delivered { frame: None, .. } => {
            let text = "delivered: the client's position is beyond it; which frame it was is no \
                        longer remembered";
            ("delivered", text.to_owned())
        }
        Verdict::Matches => {
            let text = "a client with this token and these keys gets it";
            ("matches", text.to_owned())
        }
        Verdict::NotMatched(Mismatch::Tenant) => (
            "not_matched",
            format!("it is not of tenant {tenant}: the channel's tenant rule says no"),
        ),
        Verdict::NotMatched(Mismatch::Key) => {
            let text = "its key is not among those asked for: the key filter says no";
            ("not_matched", text.to_owned())
        }
        Verdict::Unclassified => {
            let text = "nobody gets it: the channel's rule can't tell whose it is";
            ("without_tenant", text.to_owned())
        }
        Verdict::BeforeStart { start } => {
            ("before_start", format!("the subscription began later, at offset {start}"))
        }
        Verdict::NotYetRead { place, because } => {
            let why = match because {
                Because::Starting => "its start is still being found",
                Because::WaitsForHistory => "it waits for Kafka to bring older records",
                Because::UnsentBytes => "the client does not read what waits for it",
                Because::WindowFull => "as many records as its window allows are unacknowledged",
                Because::Reading => "it will come to it",
            };
            let at = place.map_or_else(
                || "the subscription reads nothing yet".to_owned(),
                |place| format!("the subscription's cursor is at {}", place.cursor),
            );
            ("not_yet_read", format!("{at}; {why}"))
        }
        Verdict::InGap { from, to, reason } => {
            let reason = gap_name(*reason);
            ("in_gap", format!("the client was told a gap [{from}, {to}), reason {reason}"))
        }
        Verdict::Gone { oldest, .. } => {
            ("gone", format!("Kafka no longer has it: its oldest record is at {oldest}"))
        }
        Verdict::NoRecord => {
            let text = "there is no record at this offset: a transaction's marker, an aborted \
                        record, or one that compaction took";
            ("no_record", text.to_owned())
        }
        Verdict::NotWritten { end } => {
            ("not_written", format!("the log, as far as it is committed, ends at {end}"))
        }
    }
}

fn predicate(why: Mismatch) -> &'static str {
    match why {
        Mismatch::Tenant => "tenant",
        Mismatch::Key => "key",
    }
}

fn because_name(because: Because) -> &'static str {
    match because {
        Because::Starting => "starting",
        Because::WaitsForHistory => "waits_for_history",
        Because::UnsentBytes => "unsent_bytes",
        Because::WindowFull => "window_full",
        Because::Reading => "reading",
    }
}

fn frame_json(frame: Option<Frame>) -> Value {
    frame.map_or(Value::Null, |frame| {
        json!({
            "from": frame.from.as_u64(),
            "to": frame.to.as_u64(),
            "at_ms": frame.at.as_millis(),
        })
    })
}

/// Returns what the token says of each claim; null where it says nothing.
fn claims(names: &[&str], principal: &Principal) -> Value {
    let value = |name: &str| match name {
        "tenant" => json!(principal.tenant.as_str()),
        "sub" => json!(principal.subject),
        "channels" => match &principal.channels {
            ChannelAccess::All => Value::Null,
            ChannelAccess::Only(names) => json!(names),
        },
        other => json!(principal.claims.get(other)),
    };
    names
        .iter()
        .map(|name| ((*name).to_owned(), value(name)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Says that the token itself is refused.
pub fn bad_token(error: &TokenError) -> Value {
    json!({
        "verdict": "denied",
        "sentence": error.to_string(),
        "reason": error.reason(),
    })
}
