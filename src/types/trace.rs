//! Traces: their ids, what the headers of a record say of one, and which
//! records are traced.

use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::num::NonZeroU64;
use std::num::NonZeroU128;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;

/// The name of a trace, by which all spans of one happening find together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The name of a span within its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// Reads 32 hexadecimal digits, or the 16 that B3 allows as well.
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_id = matches!(text.len(), 16 | 32) && is_hex(text);
        let raw = is_id.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        NonZeroU128::new(raw).map(Self)
    }

    /// Wraps a number from elsewhere; `None` for zero, which means no trace.
    pub fn from_number(raw: u128) -> Option<Self> {
        NonZeroU128::new(raw).map(Self)
    }

    /// Returns the number.
    pub fn as_u128(self) -> u128 {
        self.0.get()
    }

    /// Returns a name that is the same wherever the same record is read: every
    /// worker and replica that traces it does so under one name.
    fn of_record(place: &RecordPlace<'_>) -> Self {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, place).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        Self(NonZeroU128::new(half(0) << 64 | half(1)).unwrap_or(NonZeroU128::MIN))
    }
}

impl SpanId {
    /// Reads 16 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_id = text.len() == 16 && is_hex(text);
        let raw = is_id.then(|| u64::from_str_radix(text, 16).ok()).flatten()?;
        NonZeroU64::new(raw).map(Self)
    }

    /// Wraps a number from elsewhere; `None` for zero, which means no span.
    pub fn from_number(raw: u64) -> Option<Self> {
        NonZeroU64::new(raw).map(Self)
    }

    /// Returns the number.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What Kafka calls the cluster, for spans; empty until a broker has said it.
/// Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterName(Arc<OnceLock<Box<str>>>);

impl ClusterName {
    /// Returns the name, once it is known.
    pub fn told(&self) -> Option<&str> {
        self.0.get().map(AsRef::as_ref)
    }

    /// Takes the name, where it is not known yet; it never changes.
    pub fn tell(&self, name: String) {
        let _ = self.0.set(name.into());
    }
}

/// Where a traced span belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub trace: TraceId,
    /// The span that caused it; `None` where the trace begins here.
    pub parent: Option<SpanId>,
}

/// Where a record stands, for a trace that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordPlace<'a> {
    pub topic: &'a str,
    pub partition: PartitionId,
    pub offset: Offset,
    /// Tells a topic that was made again from the one before.
    pub timestamp: Timestamp,
}

/// A share of all things, from none to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Of [`Share::WHOLE`].
    parts: u64,
}

impl Share {
    /// Nothing.
    pub const NONE: Share = Share { parts: 0 };
    /// Everything.
    pub const ALL: Share = Share { parts: Self::WHOLE };
    /// As many values as the random part of a trace's name has.
    const WHOLE: u64 = 1 << 56;

    /// Returns the share of a ratio; `None` unless it lies from 0 to 1.
    pub fn of_ratio(ratio: f64) -> Option<Self> {
        let parts = (ratio * Self::WHOLE as f64) as u64;
        (0.0..=1.0).contains(&ratio).then_some(Self { parts })
    }

    /// Returns the share as a number from 0 to 1.
    pub fn as_ratio(self) -> f64 {
        self.parts as f64 / Self::WHOLE as f64
    }

    /// Says whether a trace is among the share. Whoever decides by the same
    /// share decides the same: the name itself holds the chance.
    fn takes(self, trace: TraceId) -> bool {
        let chance = (trace.as_u128() as u64) & (Self::WHOLE - 1);
        chance >= Self::WHOLE - self.parts
    }
}

/// Whether the flag of a producer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// Whatever the producer traces is traced here, and nothing that it does not.
    Respected,
    /// Only the share decides.
    Ignored,
}

/// Which records are traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplingRules {
    pub parents: Parents,
    /// Of those whose producer says nothing.
    pub roots: Share,
    /// A header that makes a record traced whatever else is said; its name, and
    /// any value but `0` and none.
    pub force_header: Option<String>,
}

/// Decides which records are traced, when they are read from Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sampler {
    /// None is, and no header is looked at.
    #[default]
    Off,
    On(Arc<SamplingRules>),
}

impl Sampler {
    /// Returns the trace of a record that is to be traced.
    pub fn sample<'a>(
        &self,
        place: &RecordPlace<'_>,
        headers: impl Iterator<Item = Header<'a>>,
    ) -> Option<Origin> {
        let Self::On(rules) = self else { return None };
        let found = Found::read(headers, rules.force_header.as_deref());
        let respected = match rules.parents {
            Parents::Respected => found.verdict,
            Parents::Ignored => Verdict::None,
        };
        match (found.forced, respected) {
            (Forced::Yes, _) | (Forced::No, Verdict::Sampled) => Some(found.origin_or_root(place)),
            (Forced::No, Verdict::Unsampled) => None,
            (Forced::No, Verdict::None) if rules.roots == Share::NONE => None,
            (Forced::No, Verdict::None) => {
                let origin = found.origin_or_root(place);
                rules.roots.takes(origin.trace).then_some(origin)
            }
        }
    }
}

/// Returns where a record belongs that is traced whatever its headers say.
pub fn origin_of<'a>(place: &RecordPlace<'_>, headers: impl Iterator<Item = Header<'a>>) -> Origin {
    Found::read(headers, None).origin_or_root(place)
}

/// Name and value of a header.
type Header<'a> = (&'a str, Option<&'a [u8]>);

/// What was found in the headers of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    origin: Option<Origin>,
    verdict: Verdict,
    forced: Forced,
}

/// What the producer has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sampled,
    Unsampled,
    /// Nothing was said.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forced {
    No,
    Yes,
}

impl Found {
    /// Reads W3C's `traceparent` and, where there is none, B3's headers. What is
    /// not well formed counts as absent, as both ask.
    fn read<'a>(headers: impl Iterator<Item = Header<'a>>, force: Option<&str>) -> Self {
        let mut forced = Forced::No;
        let (mut w3c, mut b3, mut parts) = (None, None, B3Parts::default());
        for (name, value) in headers {
            let is_set = value.is_some_and(|value| value != b"0");
            if force.is_some_and(|force| name.eq_ignore_ascii_case(force)) && is_set {
                forced = Forced::Yes;
            }
            // Most headers are none of these.
            if !matches!(name.as_bytes().first(), Some(b't' | b'T' | b'b' | b'B' | b'x' | b'X')) {
                continue;
            }
            let Some(text) = value.and_then(|value| str::from_utf8(value).ok()) else { continue };
            if name.eq_ignore_ascii_case("traceparent") {
                w3c = w3c.or_else(|| read_traceparent(text));
            } else if name.eq_ignore_ascii_case("b3") {
                b3 = b3.or_else(|| read_b3(text));
            } else {
                parts.note(name, text);
            }
        }
        let said = w3c.or(b3).or_else(|| parts.read());
        let (origin, verdict) = said.unwrap_or((None, Verdict::None));
        Self { origin, verdict, forced }
    }

    fn origin_or_root(&self, place: &RecordPlace<'_>) -> Origin {
        self.origin.unwrap_or_else(|| Origin { trace: TraceId::of_record(place), parent: None })
    }
}

type Said = (Option<Origin>, Verdict);

/// Reads `version-trace-span-flags`. Later versions may add fields at the end.
fn read_traceparent(text: &str) -> Option<Said> {
    let mut fields = text.split('-');
    let (version, trace) = (fields.next()?, fields.next()?);
    let (span, flags) = (fields.next()?, fields.next()?);
    let is_byte = |text: &str| text.len() == 2 && is_lower_hex(text);
    let is_whole = version != "00" || fields.next().is_none();
    let is_lower = is_lower_hex(trace) && is_lower_hex(span) && trace.len() == 32;
    if !is_byte(version) || version == "ff" || !is_byte(flags) || !is_whole || !is_lower {
        return None;
    }
    let (trace, parent) = (TraceId::from_hex(trace)?, SpanId::from_hex(span)?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let verdict = if flags & 1 == 1 { Verdict::Sampled } else { Verdict::Unsampled };
    Some((Some(Origin { trace, parent: Some(parent) }), verdict))
}

/// Reads `trace-span-state-parent`, of which the last two may be absent, or the
/// state alone.
fn read_b3(text: &str) -> Option<Said> {
    let mut fields = text.split('-');
    let first = fields.next()?;
    let Some(span) = fields.next() else {
        return Some((None, b3_verdict(first)?));
    };
    let (trace, parent) = (TraceId::from_hex(first)?, SpanId::from_hex(span)?);
    let verdict = fields.next().map_or(Some(Verdict::None), b3_verdict)?;
    Some((Some(Origin { trace, parent: Some(parent) }), verdict))
}

fn b3_verdict(state: &str) -> Option<Verdict> {
    match state {
        "1" | "d" | "true" => Some(Verdict::Sampled),
        "0" | "false" => Some(Verdict::Unsampled),
        _ => None,
    }
}

/// B3's older form, a header for each field.
#[derive(Debug, Default)]
struct B3Parts {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    verdict: Option<Verdict>,
}

impl B3Parts {
    fn note(&mut self, name: &str, text: &str) {
        if name.eq_ignore_ascii_case("x-b3-traceid") {
            self.trace = TraceId::from_hex(text);
        } else if name.eq_ignore_ascii_case("x-b3-spanid") {
            self.span = SpanId::from_hex(text);
        } else if name.eq_ignore_ascii_case("x-b3-sampled") {
            self.verdict = self.verdict.or_else(|| b3_verdict(text));
        } else if name.eq_ignore_ascii_case("x-b3-flags") && text == "1" {
            self.verdict = Some(Verdict::Sampled);
        }
    }

    fn read(&self) -> Option<Said> {
        let origin = match (self.trace, self.span) {
            (Some(trace), Some(span)) => Some(Origin { trace, parent: Some(span) }),
            _ => None,
        };
        let said = origin.is_some() || self.verdict.is_some();
        said.then_some((origin, self.verdict.unwrap_or(Verdict::None)))
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn place(offset: i64) -> RecordPlace<'static> {
        RecordPlace {
            topic: "orders",
            partition: PartitionId::from_index(1),
            offset: Offset::from_kafka(offset).expect("not negative"),
            timestamp: Timestamp::from_millis(7),
        }
    }

    fn sampler(parents: Parents, roots: f64) -> Sampler {
        let roots = Share::of_ratio(roots).expect("a ratio");
        let force_header = Some("trace-me".to_owned());
        Sampler::On(Arc::new(SamplingRules { parents, roots, force_header }))
    }

    fn sample(sampler: &Sampler, headers: &[(&str, &str)]) -> Option<Origin> {
        let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
        sampler.sample(&place(42), headers)
    }

    /// Expects that the span is found, or that nothing is, with no roots.
    fn check(headers: &[(&str, &str)], traced: bool) {
        let expected = traced.then(|| Origin {
            trace: TraceId::from_hex(TRACE).expect("well formed"),
            parent: Some(SpanId::from_hex(SPAN).expect("well formed")),
        });
        assert_eq!(sample(&sampler(Parents::Respected, 0.0), headers), expected, "{headers:?}");
    }

    #[test]
    fn the_flag_of_a_producer_is_respected() {
        check(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))], true);
        check(&[("Traceparent", &format!("00-{TRACE}-{SPAN}-03"))], true);
        check(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))], false);
        check(&[("b3", &format!("{TRACE}-{SPAN}-1"))], true);
        check(&[("b3", &format!("{TRACE}-{SPAN}-d-{SPAN}"))], true);
        check(&[("b3", &format!("{TRACE}-{SPAN}-0"))], false);
        check(&[("b3", &format!("{TRACE}-{SPAN}"))], false);
        check(&[("b3", "0")], false);
        let parts = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1")];
        check(&parts, true);
        check(&[parts[0], parts[1], ("x-b3-flags", "1")], true);
        check(&[parts[0], parts[1], ("x-b3-sampled", "0")], false);
        // W3C's counts where both stand.
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        check(&[("b3", "0"), ("traceparent", &w3c)], true);
    }

    #[test]
    fn what_is_not_well_formed_counts_as_absent() {
        for odd in [
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{}-{SPAN}-01", &TRACE[..16]),
            format!("00-{}é-{SPAN}-01", &TRACE[..30]),
            String::new(),
        ] {
            check(&[("traceparent", &odd)], false);
            let root = sample(&sampler(Parents::Respected, 1.0), &[("traceparent", &odd)]);
            assert_eq!(root.and_then(|origin| origin.parent), None, "{odd}");
            assert!(root.is_some(), "{odd}");
        }
        check(&[("traceparent", &format!("01-{TRACE}-{SPAN}-01-more"))], true);
        check(&[("b3", &format!("{TRACE}-{SPAN}-x"))], false);
    }

    #[test]
    fn a_header_forces_a_record_of_whatever_flag() {
        let unsampled = format!("00-{TRACE}-{SPAN}-00");
        check(&[("traceparent", &unsampled), ("trace-me", "1")], true);
        check(&[("traceparent", &unsampled), ("trace-me", "0")], false);
        let root = sample(&sampler(Parents::Respected, 0.0), &[("TRACE-ME", "")]);
        assert_eq!(root.map(|origin| origin.parent), Some(None));
    }

    #[test]
    fn roots_are_sampled_by_share_and_alike_everywhere() {
        let half = sampler(Parents::Respected, 0.5);
        let taken = (0..10_000).filter(|offset| {
            let place = place(*offset);
            let first = half.sample(&place, std::iter::empty());
            assert_eq!(first, half.sample(&place, std::iter::empty()));
            first.is_some()
        });
        let taken = taken.count();
        assert!((4_700..5_300).contains(&taken), "{taken} of 10,000");
        assert_eq!(sample(&sampler(Parents::Respected, 0.0), &[]), None);
        assert!(sample(&sampler(Parents::Respected, 1.0), &[]).is_some());
        assert_eq!(sample(&Sampler::Off, &[("trace-me", "1")]), None);
    }

    #[test]
    fn an_ignored_flag_leaves_the_trace_and_its_parent() {
        let unsampled = format!("00-{TRACE}-{SPAN}-00");
        let origin = sample(&sampler(Parents::Ignored, 1.0), &[("traceparent", &unsampled)]);
        assert_eq!(origin.map(|origin| origin.trace.to_string()), Some(TRACE.to_owned()));
        let parent = origin.and_then(|origin| origin.parent);
        assert_eq!(parent.map(|parent| parent.to_string()), Some(SPAN.to_owned()));
        let sampled = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(sample(&sampler(Parents::Ignored, 0.0), &[("traceparent", &sampled)]), None);
    }

    #[test]
    fn a_ratio_lies_from_none_to_all() {
        assert_eq!(Share::of_ratio(0.0), Some(Share::NONE));
        assert_eq!(Share::of_ratio(1.0), Some(Share::ALL));
        assert_eq!(Share::of_ratio(0.5).map(Share::as_ratio), Some(0.5));
        for odd in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::of_ratio(odd), None, "{odd}");
        }
    }
}
