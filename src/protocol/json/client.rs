//! A client's frames, read strictly and written.

use bytes::Bytes;

use crate::protocol::argument;
use crate::protocol::decode_error::DecodeError;
use crate::protocol::frame::ClientFrame;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::StartAt;
use crate::protocol::frame::Subscribe;
use crate::protocol::frame::Token;
use crate::protocol::json::text::ObjectWriter;
use crate::protocol::json::text::read_base64;
use crate::protocol::json::text::write_base64;
use crate::protocol::json::text::write_string;
use crate::protocol::json::time::read_duration;
use crate::protocol::json::time::read_timestamp;
use crate::protocol::json::time::write_duration;
use crate::protocol::json::time::write_timestamp;
use crate::protocol::json::tree::Fields;
use crate::protocol::json::tree::Node;
use crate::protocol::json::tree::printable;
use crate::types::filter::KeyFilter;
use crate::types::ids::RequestId;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Positions;

/// Reads a frame; see [`crate::protocol::json::decode`].
pub(crate) fn read(text: &str) -> Result<ClientFrame, DecodeError> {
    let Node::Object(entries) = Node::parse(text)? else {
        return Err(DecodeError::bad_frame("a frame must be a JSON object with a `type`"));
    };
    let mut fields = Fields::new("a frame", entries);
    let id = match fields.peek("id") {
        Some(Node::Whole(raw)) => argument::request_id(*raw).ok(),
        _ => None,
    };
    read_frame(&mut fields)
        .and_then(|(frame, known)| fields.finish(known).map(|()| frame))
        .map_err(|error| error.for_request(id))
}

/// Reads the frame and returns it with the names of all its fields.
fn read_frame(fields: &mut Fields) -> Result<(ClientFrame, &'static str), DecodeError> {
    let name = fields.text("type")?;
    match name.as_str() {
        "authenticate" => {
            fields.rename("authenticate");
            let token = fields.text("token")?;
            if token.is_empty() {
                return Err(DecodeError::bad_frame("`token` is empty"));
            }
            Ok((ClientFrame::Authenticate { token: Token::new(token) }, "type, token"))
        }
        "subscribe" => {
            fields.rename("subscribe");
            let subscribe = ClientFrame::Subscribe(read_subscribe(fields)?);
            Ok((subscribe, "type, id, channel, keys, from, on_gap, window"))
        }
        "unsubscribe" => {
            fields.rename("unsubscribe");
            let id = argument::request_id(fields.whole("id")?)?;
            let sub = argument::sub(fields.whole("sub")?)?;
            Ok((ClientFrame::Unsubscribe { id, sub }, "type, id, sub"))
        }
        "ack" => {
            fields.rename("ack");
            let sub = argument::sub(fields.whole("sub")?)?;
            let positions = read_positions(fields.require("positions")?)?;
            Ok((ClientFrame::Ack { sub, positions }, "type, sub, positions"))
        }
        "ping" => {
            fields.rename("ping");
            Ok((ClientFrame::Ping, "type"))
        }
        other => {
            let known = "authenticate, subscribe, unsubscribe, ack, ping";
            Err(DecodeError::bad_frame(match printable(other) {
                Some(other) => format!("unknown type `{other}`: a client sends {known}"),
                None => format!("unknown type: a client sends {known}"),
            }))
        }
    }
}

fn read_subscribe(fields: &mut Fields) -> Result<Subscribe, DecodeError> {
    let id: RequestId = argument::request_id(fields.whole("id")?)?;
    let channel = argument::channel(fields.text("channel")?)?;
    let filter = fields.take("keys").map_or(Ok(KeyFilter::All), read_keys)?;
    let from = fields.take("from").map_or(Ok(StartAt::Latest), read_from)?;
    let on_gap = fields.take("on_gap").map_or(Ok(OnGap::default()), read_on_gap)?;
    let window = match fields.take("window") {
        None => None,
        Some(node) => Some(argument::window(node.into_whole("window")?)?),
    };
    Ok(Subscribe { id, channel, filter, from, on_gap, window })
}

fn read_keys(node: Node) -> Result<KeyFilter, DecodeError> {
    match node {
        Node::List(nodes) => {
            let keys = nodes.into_iter().map(read_key).collect::<Result<Vec<_>, _>>()?;
            argument::keys(keys)
        }
        Node::Object(entries) => {
            let mut fields = Fields::new("`keys`", entries);
            let prefix = match (fields.take("prefix"), fields.take("prefix_base64")) {
                (Some(node), None) => Bytes::from(node.into_text("prefix")?),
                (None, Some(node)) => base64_bytes("prefix_base64", node)?,
                _ => {
                    return Err(DecodeError::bad_frame(
                        "`keys` must be an array of keys, or an object with one of \
                         `prefix` and `prefix_base64`",
                    ));
                }
            };
            fields.finish("prefix, prefix_base64")?;
            argument::prefix(prefix)
        }
        other => Err(other.is_not("keys", "an array of keys or an object with a prefix")),
    }
}

fn read_key(node: Node) -> Result<Bytes, DecodeError> {
    match node {
        Node::Text(text) => Ok(Bytes::from(text)),
        Node::Object(entries) => {
            let mut fields = Fields::new("a key", entries);
            let key = base64_bytes("base64", fields.require("base64")?)?;
            fields.finish("base64")?;
            Ok(key)
        }
        other => Err(other.is_not("keys", "an array of strings or {\"base64\":…} objects")),
    }
}

fn base64_bytes(name: &str, node: Node) -> Result<Bytes, DecodeError> {
    let text = node.into_text(name)?;
    let bytes = read_base64(&text).ok_or_else(|| {
        DecodeError::invalid(format!("`{name}` is not base64 (standard alphabet, padded)"))
    })?;
    Ok(Bytes::from(bytes))
}

fn read_from(node: Node) -> Result<StartAt, DecodeError> {
    const WANTED: &str = "\"latest\", \"earliest\" or an object with one of `timestamp`, `ago` \
                          and `positions`";
    let entries = match node {
        Node::Text(text) if text == "latest" => return Ok(StartAt::Latest),
        Node::Text(text) if text == "earliest" => return Ok(StartAt::Earliest),
        Node::Object(entries) => entries,
        Node::Text(_) => return Err(DecodeError::bad_frame(format!("`from` must be {WANTED}"))),
        other => return Err(other.is_not("from", WANTED)),
    };
    let mut fields = Fields::new("`from`", entries);
    let (timestamp, ago, positions) =
        (fields.take("timestamp"), fields.take("ago"), fields.take("positions"));
    let start = match (timestamp, ago, positions) {
        (Some(node), None, None) => {
            let timestamp = read_timestamp(&node.into_text("timestamp")?).ok_or_else(|| {
                DecodeError::invalid(
                    "`timestamp` must be RFC 3339 with a zone, such as \"2026-11-23T08:00:00Z\"",
                )
            })?;
            StartAt::Timestamp(argument::timestamp(timestamp.as_millis())?)
        }
        (None, Some(node), None) => {
            let ago = read_duration(&node.into_text("ago")?).ok_or_else(|| {
                DecodeError::invalid(
                    "`ago` must be a whole number and one unit of ms, s, m, h, d, such as \"15m\"",
                )
            })?;
            StartAt::Ago(argument::ago(ago)?)
        }
        (None, None, Some(node)) => {
            let positions = read_positions(node)?;
            let topic_id = argument::topic_id(&fields.text("topic_id")?)?;
            let epochs = read_epochs(&mut fields)?;
            argument::check_epochs(&positions, &epochs)?;
            StartAt::Place(Place { topic_id, positions, epochs })
        }
        _ => return Err(DecodeError::bad_frame(format!("`from` must be {WANTED}"))),
    };
    fields.finish("timestamp, ago, positions, topic_id, epochs")?;
    Ok(start)
}

fn read_on_gap(node: Node) -> Result<OnGap, DecodeError> {
    match node.into_text("on_gap")?.as_str() {
        "continue" => Ok(OnGap::Continue),
        "stop" => Ok(OnGap::Stop),
        _ => Err(DecodeError::bad_frame("`on_gap` must be \"continue\" or \"stop\"")),
    }
}

pub(crate) fn read_positions(node: Node) -> Result<Positions, DecodeError> {
    let mut positions = Positions::new();
    for (name, offset) in node.into_entries("positions")? {
        let offset = offset.into_whole("positions")?;
        argument::add_position(&mut positions, partition_number(&name), offset)?;
    }
    Ok(positions)
}

/// Reads `epochs`, which may be absent.
pub(crate) fn read_epochs(fields: &mut Fields) -> Result<Epochs, DecodeError> {
    let mut epochs = Epochs::new();
    let Some(node) = fields.take("epochs") else { return Ok(epochs) };
    for (name, epoch) in node.into_entries("epochs")? {
        let (epoch, to) = epoch.into_whole_pair("epochs")?;
        argument::add_epoch(&mut epochs, partition_number(&name), epoch, to)?;
    }
    Ok(epochs)
}

/// Reads a partition's number in its one decimal form, without leading zeros.
fn partition_number(name: &str) -> Option<u32> {
    let number: u32 = name.parse().ok()?;
    let plain = name == "0" || name.starts_with(|first: char| matches!(first, '1'..='9'));
    plain.then_some(number)
}

/// Writes a frame; see [`crate::protocol::json::encode_client`].
pub(crate) fn write(frame: &ClientFrame) -> String {
    let mut out = Vec::new();
    match frame {
        ClientFrame::Authenticate { token } => {
            let mut object = ObjectWriter::frame(&mut out, "authenticate");
            object.text("token", token.secret());
            object.close();
        }
        ClientFrame::Subscribe(subscribe) => write_subscribe(&mut out, subscribe),
        ClientFrame::Unsubscribe { id, sub } => {
            let mut object = ObjectWriter::frame(&mut out, "unsubscribe");
            object.number("id", id.raw());
            object.number("sub", sub.raw());
            object.close();
        }
        ClientFrame::Ack { sub, positions } => {
            let mut object = ObjectWriter::frame(&mut out, "ack");
            object.number("sub", sub.raw());
            object.positions("positions", positions);
            object.close();
        }
        ClientFrame::Ping => ObjectWriter::frame(&mut out, "ping").close(),
    }
    String::from_utf8(out).expect("JSON is written from text only")
}

fn write_subscribe(out: &mut Vec<u8>, subscribe: &Subscribe) {
    let mut object = ObjectWriter::frame(out, "subscribe");
    object.number("id", subscribe.id.raw());
    object.text("channel", subscribe.channel.as_str());
    match &subscribe.filter {
        KeyFilter::All => {}
        KeyFilter::Keys(keys) => {
            let out = object.field("keys");
            out.push(b'[');
            for (index, key) in keys.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_key(out, key);
            }
            out.push(b']');
        }
        KeyFilter::Prefix(prefix) => {
            let mut keys = ObjectWriter::open(object.field("keys"));
            match str::from_utf8(prefix) {
                Ok(text) => keys.text("prefix", text),
                Err(_) => write_base64(keys.field("prefix_base64"), prefix),
            }
            keys.close();
        }
    }
    write_from(object.field("from"), &subscribe.from);
    if subscribe.on_gap == OnGap::Stop {
        object.text("on_gap", "stop");
    }
    if let Some(window) = subscribe.window {
        object.number("window", window.get().into());
    }
    object.close();
}

fn write_key(out: &mut Vec<u8>, key: &[u8]) {
    match str::from_utf8(key) {
        Ok(text) => write_string(out, text),
        Err(_) => {
            let mut object = ObjectWriter::open(out);
            write_base64(object.field("base64"), key);
            object.close();
        }
    }
}

fn write_from(out: &mut Vec<u8>, from: &StartAt) {
    match from {
        StartAt::Latest => write_string(out, "latest"),
        StartAt::Earliest => write_string(out, "earliest"),
        StartAt::Timestamp(timestamp) => {
            let mut object = ObjectWriter::open(out);
            object.text("timestamp", &write_timestamp(*timestamp));
            object.close();
        }
        StartAt::Ago(ago) => {
            let mut object = ObjectWriter::open(out);
            object.text("ago", &write_duration(*ago));
            object.close();
        }
        StartAt::Place(place) => {
            let mut object = ObjectWriter::open(out);
            object.positions("positions", &place.positions);
            object.epochs(&place.epochs);
            object.text("topic_id", &place.topic_id.to_string());
            object.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error_code::ErrorCode;

    fn check(text: &str, id: Option<u64>, code: ErrorCode, sentence: &str) {
        let error = read(text).expect_err(text);
        assert_eq!((error.id.map(RequestId::raw), error.code), (id, code), "{text}: {error}");
        assert!(error.message.contains(sentence), "{text}: {error}");
    }

    fn check_subscribe(fields: &str, code: ErrorCode, sentence: &str) {
        let text = format!("{{\"id\":7,{fields},\"type\":\"subscribe\"}}");
        check(&text, Some(7), code, sentence);
    }

    #[test]
    fn what_is_no_frame_is_refused_with_a_remedy() {
        let bad = ErrorCode::BadFrame;
        check("", None, bad, "not JSON");
        check("[]", None, bad, "must be a JSON object");
        check("{}", None, bad, "`type` is missing");
        check(r#"{"type":"pong"}"#, None, bad, "unknown type `pong`: a client sends authenticate");
        check(r#"{"type":"ping","id":3}"#, Some(3), bad, "unknown field `id` in ping");
        check(r#"{"type":"ping","type":"ping"}"#, None, bad, "`type` stands more than once");
        check(r#"{"type":"authenticate","token":""}"#, None, bad, "`token` is empty");
        check(r#"{"type":"unsubscribe","id":3}"#, Some(3), bad, "`sub` is missing in unsubscribe");
        check(r#"{"type":"unsubscribe","id":-3,"sub":1}"#, None, bad, "must be a whole number");
        check(r#"{"type":"unsubscribe","id":1,"sub":"1"}"#, Some(1), bad, "not a string");
        check(r#"{"type":"unsubscribe","id":9007199254740992,"sub":1}"#, None, bad, "below 2^53");
        check(&("[".repeat(200) + &"]".repeat(200)), None, bad, "recursion limit");
        check("{\"type\":\"ping\"}{}", None, bad, "not JSON");
    }

    #[test]
    fn a_bad_subscription_is_refused_under_its_number() {
        let (bad, invalid) = (ErrorCode::BadFrame, ErrorCode::InvalidArgument);
        check_subscribe(r#""chanel":"c""#, bad, "`channel` is missing in subscribe");
        check_subscribe(r#""channel":"c","key":"k""#, bad, "unknown field `key` in subscribe");
        check_subscribe(r#""channel":"""#, invalid, "name the channel");
        check_subscribe(r#""channel":"c","keys":[]"#, invalid, "leave it out");
        check_subscribe(r#""channel":"c","keys":null"#, bad, "not null");
        check_subscribe(r#""channel":"c","keys":[{"base64":"?"}]"#, invalid, "not base64");
        check_subscribe(r#""channel":"c","keys":{"prefix":""}"#, invalid, "prefix is empty");
        check_subscribe(r#""channel":"c","keys":{"prefix":"a","suffix":"b"}"#, bad, "`suffix`");
        check_subscribe(r#""channel":"c","from":"newest""#, bad, "`from` must be \"latest\"");
        check_subscribe(r#""channel":"c","from":{"ago":"1w"}"#, invalid, "`ago` must be a whole");
        check_subscribe(r#""channel":"c","from":{"ago":"36501d"}"#, invalid, "at most 36500d");
        check_subscribe(r#""channel":"c","from":{"ago":"1d","timestamp":"x"}"#, bad, "one of");
        check_subscribe(
            r#""channel":"c","from":{"timestamp":"1969-12-31T23:59:59Z"}"#,
            invalid,
            "between the years",
        );
        check_subscribe(
            r#""channel":"c","from":{"positions":{"0":1}}"#,
            bad,
            "`topic_id` is missing in `from`",
        );
        for positions in [r#"{"00":1}"#, r#"{"-1":1}"#, r#"{"+1":1}"#, r#"{"2147483648":1}"#] {
            let from = format!(r#""channel":"c","from":{{"positions":{positions}}}"#);
            check_subscribe(&from, invalid, "decimal number of a partition");
        }
        check_subscribe(
            r#""channel":"c","from":{"positions":{"0":1,"0":2}}"#,
            bad,
            "partition 0 more than once",
        );
        check_subscribe(
            r#""channel":"c","from":{"positions":{"0":9223372036854775808}}"#,
            invalid,
            "above 2^63 - 1",
        );
        let check_epochs = |epochs: &str, code, sentence| {
            let from = format!(
                r#""channel":"c","from":{{"positions":{{"0":1}},"topic_id":"{}","epochs":{epochs}}}"#,
                "0".repeat(32)
            );
            check_subscribe(&from, code, sentence);
        };
        for epochs in [r#"{"0":[5]}"#, r#"{"0":5}"#, r#"{"0":[5,1,1]}"#] {
            check_epochs(epochs, bad, "leader epoch and offset");
        }
        check_epochs(r#"{"0":[5,"1"]}"#, bad, "a number");
        check_epochs(r#"{"0":[5,1],"0":[5,1]}"#, bad, "partition 0 more than once");
        check_epochs(r#"{"x":[5,1]}"#, invalid, "decimal number of a partition");
        check_epochs(r#"{"1":[5,1]}"#, invalid, "of which `positions` says nothing");
        check_epochs(r#"{"0":[2147483648,1]}"#, invalid, "above 2^31 - 1");
        check_epochs(r#"{"0":[5,9223372036854775808]}"#, invalid, "above 2^63 - 1");
        check_subscribe(r#""channel":"c","window":0"#, invalid, "between 1 and 100000");
        check_subscribe(r#""channel":"c","on_gap":"halt""#, bad, "\"continue\" or \"stop\"");
    }

    #[test]
    fn more_than_allowed_is_told_apart_from_nonsense() {
        let limit = ErrorCode::LimitExceeded;
        let keys = vec!["\"k\""; 1_001].join(",");
        check_subscribe(&format!(r#""channel":"c","keys":[{keys}]"#), limit, "more than 1000");
        let key = "k".repeat(4_097);
        let invalid = ErrorCode::InvalidArgument;
        check_subscribe(&format!(r#""channel":"c","keys":["{key}"]"#), invalid, "more than 4096");
        let positions: Vec<_> = (0..10_001).map(|p| format!("\"{p}\":0")).collect();
        let from = format!(r#""channel":"c","from":{{"positions":{{{}}}}}"#, positions.join(","));
        check_subscribe(&from, limit, "more than 10000 partitions");
        let epochs: Vec<_> = (0..10_001).map(|p| format!("\"{p}\":[0,0]")).collect();
        let from = format!(
            r#""channel":"c","from":{{"positions":{{}},"topic_id":"{}","epochs":{{{}}}}}"#,
            "0".repeat(32),
            epochs.join(",")
        );
        check_subscribe(&from, limit, "`epochs` names more than 10000 partitions");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let frame = read(r#"{"type":"subscribe","id":1,"channel":"orders"}"#).expect("whole");
        let ClientFrame::Subscribe(subscribe) = frame else { panic!("a subscribe") };
        assert_eq!(subscribe.filter, KeyFilter::All);
        assert_eq!(subscribe.from, StartAt::Latest);
        assert_eq!((subscribe.on_gap, subscribe.window), (OnGap::Continue, None));
    }
}
