//! What a request asks for: which content, in which form, under which conditions.

use std::{collections::BTreeMap, ops::Range};

use axum::http::{HeaderMap, HeaderName, header};

use super::{GatewayError, RAW_BLOCK_TYPE};
use crate::{
    Cid, CidError,
    car::CAR_TYPE,
    cid::{AnyCid, base32_cid_bytes},
    multibase::base32_encode,
    traversal::Scope,
};

/// Codec of plain bytes in identity CIDs.
const CODEC_RAW: u64 = 0x55;
/// Longest name that a client can give a download, in bytes.
const FILENAME_SIZE_MAX: usize = 255;

pub(super) type Names = BTreeMap<String, String>;

/// A request that can be answered.
#[derive(Debug)]
pub(super) struct Request {
    pub root: Root,
    pub path: String,
    pub form: Form,
    pub range: Option<RangeWanted>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    pub is_only_if_cached: bool,
    pub is_download: bool,
    pub filename: Option<String>,
    /// Where this answer is found without negotiation, if it was negotiated.
    pub content_location: Option<String>,
}

/// What stands after `/ipfs/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Block(Cid),
    /// An identity CID of plain bytes, which needs no store.
    Inline {
        cid: Vec<u8>,
        bytes: Vec<u8>,
    },
}

/// How content is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Raw,
    Car(Car),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Car {
    pub scope: CarScope,
    pub has_dups: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CarScope {
    Block,
    Entity,
    Bytes(EntityBytes),
    All,
}

/// `entity-bytes`: both ends inclusive, negative ones counted from the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityBytes {
    from: i64,
    to: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeWanted {
    /// `bytes=1-` and `bytes=1-2`; the end is exclusive here.
    From(u64, Option<u64>),
    /// `bytes=-1`.
    Last(u64),
}

impl Root {
    pub fn parse(text: &str) -> Result<Self, GatewayError> {
        let refused = match text.parse() {
            Ok(cid) => return Ok(Self::Block(cid)),
            Err(error) => GatewayError::Cid(error),
        };
        let Some(cid) = base32_cid_bytes(text) else {
            return Err(refused);
        };
        match AnyCid::from_bytes(&cid) {
            Ok(AnyCid::Identity { codec: CODEC_RAW, bytes }) => {
                let bytes = bytes.to_vec();
                Ok(Self::Inline { cid, bytes })
            }
            Ok(AnyCid::Identity { .. }) => Err(GatewayError::Inline),
            Ok(_) => Err(GatewayError::Cid(CidError::Shape)),
            Err(_) => Err(refused),
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Block(cid) => cid.fmt(formatter),
            Self::Inline { cid, .. } => write!(formatter, "b{}", base32_encode(cid)),
        }
    }
}

impl Request {
    pub fn parse(names: &Names, query: &Names, headers: &HeaderMap) -> Result<Self, GatewayError> {
        let text = |name: HeaderName| {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            Some(values.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
        };
        let parameter = |name: &str| query.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let root = Root::parse(names.get("cid").map_or("", String::as_str))?;
        let path = names.get("path").cloned().unwrap_or_default();
        let is_worker = headers.get("service-worker").is_some_and(|value| value.as_bytes() == b"script");
        if is_worker && path.is_empty() {
            return Err(GatewayError::ServiceWorker);
        }
        let filename = parameter("filename").map(str::to_owned);
        if filename.as_ref().is_some_and(|name| name.len() > FILENAME_SIZE_MAX) {
            return Err(GatewayError::Parameter("filename"));
        }
        let accept = text(header::ACCEPT).unwrap_or_default();
        let form = negotiate(&accept, &parameter)?;
        let asked = Asked { form, query };
        let content_location = asked.is_negotiated(&accept, &parameter).then(|| asked.location(&root, &path));
        Ok(Self {
            root,
            path,
            form,
            range: text(header::RANGE).and_then(|range| RangeWanted::parse(&range)),
            if_range: text(header::IF_RANGE),
            if_none_match: text(header::IF_NONE_MATCH),
            is_only_if_cached: text(header::CACHE_CONTROL)
                .is_some_and(|control| control.split(',').any(|part| part.trim() == "only-if-cached")),
            is_download: parameter("download") == Some("true"),
            filename,
            content_location,
        })
    }

    /// Whether the client has the answer with this tag.
    pub fn has(&self, etag: &str) -> bool {
        let bare = |tag: &str| tag.trim().strip_prefix("W/").unwrap_or(tag.trim()).to_owned();
        let known = self.if_none_match.as_deref().unwrap_or_default().split(',').map(bare);
        known.into_iter().any(|known| known == "*" || known == bare(etag))
    }

    /// The range that is wanted of an answer with this tag and size; none means all.
    pub fn range_within(&self, etag: &str, size: u64) -> Result<Option<Range<u64>>, GatewayError> {
        // What the client has a part of is something else.
        if self.if_range.as_ref().is_some_and(|tag| tag != etag) {
            return Ok(None);
        }
        self.range.map(|range| range.within(size)).transpose()
    }
}

/// The path of a URL or header, every byte that could be misread percent-encoded.
pub(super) fn path_text(root: &Root, path: &str) -> String {
    let mut text = format!("/ipfs/{root}");
    for name in path.split('/').filter(|name| !name.is_empty()) {
        text.push('/');
        text.push_str(&percent_encoded(name));
    }
    text
}

pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

// ---- negotiation ----

/// One entry of `Accept`.
#[derive(Debug)]
struct Offer<'a> {
    media_type: String,
    parameters: Vec<(String, &'a str)>,
    /// Thousandths.
    quality: u32,
}

impl<'a> Offer<'a> {
    /// The entries, those that are liked best first.
    fn parse_all(accept: &'a str) -> Vec<Self> {
        let mut offers: Vec<_> = accept.split(',').filter_map(Self::parse).collect();
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.quality));
        offers
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|media_type| media_type.contains('/'))?.to_ascii_lowercase();
        let (mut parameters, mut quality) = (Vec::new(), 1000);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            match name.as_str() {
                // Rounded down; anything that is no number is passed over.
                "q" => quality = value.parse::<f32>().map_or(quality, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32),
                _ => parameters.push((name, value)),
            }
        }
        (quality > 0).then_some(Self { media_type, parameters, quality })
    }

    fn is_car(&self) -> bool {
        self.media_type == CAR_TYPE
    }

    /// Whether a CAR as it is asked for is to have duplicates; an error says what cannot be given.
    fn has_dups(&self) -> Result<bool, GatewayError> {
        let mut has_dups = false;
        for (name, value) in &self.parameters {
            if let Some(wanted) = car_parameter(name, value).map_err(|()| Self::not_made(name, value))? {
                has_dups = wanted;
            }
        }
        Ok(has_dups)
    }

    fn not_made(name: &str, value: &str) -> GatewayError {
        GatewayError::not_acceptable(&format!("{CAR_TYPE}; {name}={value}"))
    }

    fn form(&self, car: impl FnOnce(bool) -> Result<Form, GatewayError>) -> Result<Form, GatewayError> {
        match self.media_type.as_str() {
            RAW_BLOCK_TYPE => Ok(Form::Raw),
            CAR_TYPE => car(self.has_dups()?),
            "application/x-tar" | "application/vnd.ipfs.ipns-record" => {
                Err(GatewayError::not_acceptable(&self.media_type))
            }
            other if other.starts_with("application/vnd.ipld.") => Err(GatewayError::not_acceptable(other)),
            _ => Ok(Form::Plain),
        }
    }
}

/// What a parameter of a CAR says about duplicates; an error if it asks for what is not made here.
fn car_parameter(name: &str, value: &str) -> Result<Option<bool>, ()> {
    match (name, value) {
        ("version", "1") | ("order", "dfs" | "unk") => Ok(None),
        ("dups", "y") => Ok(Some(true)),
        ("dups", "n") => Ok(Some(false)),
        ("version" | "order" | "dups", value) if !value.is_empty() => Err(()),
        _ => Ok(None),
    }
}

fn negotiate<'q>(accept: &str, parameter: &impl Fn(&str) -> Option<&'q str>) -> Result<Form, GatewayError> {
    let offers = Offer::parse_all(accept);
    // Parameters of the URL go before those of the header.
    let car = |has_dups: bool| {
        let mut has_dups = has_dups;
        for (name, key) in [("car-version", "version"), ("car-order", "order"), ("car-dups", "dups")] {
            let Some(value) = parameter(name) else { continue };
            if let Some(wanted) = car_parameter(key, value).map_err(|()| GatewayError::Parameter(name))? {
                has_dups = wanted;
            }
        }
        Ok(Form::Car(Car { scope: CarScope::parse(parameter)?, has_dups }))
    };
    match parameter("format") {
        Some("raw") => Ok(Form::Raw),
        Some("car") => {
            // The first of those that can be given; none of them is no wish.
            let mut wishes = offers.iter().filter(|offer| offer.is_car()).map(Offer::has_dups);
            let first = wishes.next().transpose();
            let has_dups = first.or_else(|refused| wishes.find_map(Result::ok).map(Some).ok_or(refused))?;
            car(has_dups.unwrap_or(false))
        }
        Some(format @ ("tar" | "dag-json" | "dag-cbor" | "json" | "cbor")) => Err(GatewayError::not_acceptable(format)),
        Some(format) => Err(GatewayError::Format(format.to_owned())),
        None => {
            let mut refused = None;
            for offer in &offers {
                match offer.form(car) {
                    Err(error @ GatewayError::NotAcceptable(_)) => refused = Some(error),
                    form => return form,
                }
            }
            refused.map_or(Ok(Form::Plain), Err)
        }
    }
}

/// A form with the query that came with it.
struct Asked<'a> {
    form: Form,
    query: &'a Names,
}

impl Asked<'_> {
    /// Whether the header had a say in the form, or was overruled.
    fn is_negotiated<'q>(&self, accept: &str, parameter: &impl Fn(&str) -> Option<&'q str>) -> bool {
        let offers = Offer::parse_all(accept);
        let named = match self.form {
            Form::Plain => return false,
            Form::Raw => offers.iter().any(|offer| offer.media_type == RAW_BLOCK_TYPE),
            Form::Car(_) => offers.iter().any(Offer::is_car),
        };
        let is_other = offers.iter().any(|offer| offer.is_car() || offer.media_type == RAW_BLOCK_TYPE) && !named;
        let has_wishes = offers.iter().any(|offer| offer.is_car() && !offer.parameters.is_empty());
        let is_car = matches!(self.form, Form::Car(_));
        parameter("format").is_none() || is_other || (is_car && has_wishes)
    }

    /// The URL of the same answer, everything said in its query.
    fn location(&self, root: &Root, path: &str) -> String {
        let format = match self.form {
            Form::Car(_) => "car",
            _ => "raw",
        };
        let mut url = format!("{}?format={format}", path_text(root, path));
        if let Form::Car(car) = self.form {
            for name in ["dag-scope", "entity-bytes"] {
                if let Some(value) = self.query.get(name) {
                    url.push_str(&format!("&{name}={}", percent_encoded(value)));
                }
            }
            url.push_str(&format!("&car-version=1&car-order=dfs&car-dups={}", if car.has_dups { 'y' } else { 'n' }));
        }
        url
    }
}

// ---- parts of content ----

impl CarScope {
    fn parse<'q>(parameter: &impl Fn(&str) -> Option<&'q str>) -> Result<Self, GatewayError> {
        let scope = match parameter("dag-scope") {
            Some("block") => Self::Block,
            Some("entity") => Self::Entity,
            Some("all") | None => Self::All,
            Some(_) => return Err(GatewayError::Parameter("dag-scope")),
        };
        match parameter("entity-bytes") {
            // It implies the scope.
            Some(bytes) => EntityBytes::parse(bytes).map(Self::Bytes).ok_or(GatewayError::Parameter("entity-bytes")),
            None => Ok(scope),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Entity => "entity",
            Self::Bytes(_) => "bytes",
            Self::All => "all",
        }
    }

    /// The same for a file of `size` bytes; `None` if what lies there is no file.
    pub fn of_file(self, size: Option<u64>) -> Result<Scope, GatewayError> {
        match (self, size) {
            (Self::Block, _) => Ok(Scope::Block),
            (Self::All, _) => Ok(Scope::All),
            (Self::Entity, _) | (Self::Bytes(_), None) => Ok(Scope::Entity),
            (Self::Bytes(bytes), Some(size)) => bytes.within(size).map(Scope::Bytes),
        }
    }
}

impl EntityBytes {
    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once(':')?;
        let from = from.parse().ok()?;
        let to = if to == "*" { None } else { Some(to.parse().ok()?) };
        // Ends on the same side can be told to be in the wrong order.
        let is_backwards = to.is_some_and(|to: i64| (from < 0) == (to < 0) && to < from);
        (!is_backwards).then_some(Self { from, to })
    }

    /// The range in a file of `size` bytes, empty if it has no such bytes.
    fn within(self, size: u64) -> Result<Range<u64>, GatewayError> {
        let place = |end: i64| match u64::try_from(end) {
            Ok(start) => Some(start),
            Err(_) => size.checked_sub(end.unsigned_abs()),
        };
        if size > 0 && u64::try_from(self.from).is_ok_and(|from| from >= size) {
            return Err(GatewayError::EntityBytes { size });
        }
        let from = place(self.from).unwrap_or(0);
        let end = match self.to {
            None => size,
            // The last byte is part of the range; before the start there is none.
            Some(to) => place(to).map_or(0, |to| to.saturating_add(1)).min(size),
        };
        Ok(from..end.max(from))
    }
}

impl std::fmt::Display for EntityBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.to {
            Some(to) => write!(formatter, "{}:{to}", self.from),
            None => write!(formatter, "{}:*", self.from),
        }
    }
}

impl RangeWanted {
    /// One range of bytes. Anything else is passed over, as the standard allows.
    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        if from.trim().is_empty() {
            return Some(Self::Last(number(to)?));
        }
        let from = number(from)?;
        if to.trim().is_empty() {
            return Some(Self::From(from, None));
        }
        let end = number(to)?.checked_add(1)?;
        (from < end).then_some(Self::From(from, Some(end)))
    }

    fn within(self, size: u64) -> Result<Range<u64>, GatewayError> {
        let range = match self {
            Self::From(from, end) => from..end.unwrap_or(size).min(size),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() { Err(GatewayError::Range { size }) } else { Ok(range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn form(accept: &str, query: &[(&str, &str)]) -> Result<Form, StatusCode> {
        let parameter = |name: &str| query.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        negotiate(accept, &parameter).map_err(|error| error.status())
    }

    fn car(scope: CarScope, has_dups: bool) -> Result<Form, StatusCode> {
        Ok(Form::Car(Car { scope, has_dups }))
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, size, expected) in [
            ("bytes=0-0", 10, Some(Some(0..1))),
            ("bytes=3-", 10, Some(Some(3..10))),
            ("bytes=3-99", 10, Some(Some(3..10))),
            ("bytes=-4", 10, Some(Some(6..10))),
            ("bytes=-40", 10, Some(Some(0..10))),
            ("bytes=10-", 10, Some(None)),
            ("bytes=-0", 10, Some(None)),
            ("bytes=0-", 0, Some(None)),
            ("bytes=4-3", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=-", 10, None),
            ("lines=0-1", 10, None),
        ] {
            let range = RangeWanted::parse(text).map(|range| range.within(size).ok());
            assert_eq!(range, expected, "{text}");
        }
    }

    #[test]
    fn entity_bytes_are_read_as_the_specification_says() {
        for (text, size, expected) in [
            ("0:*", 10, Some(Some(0..10))),
            ("0:0", 10, Some(Some(0..1))),
            ("3:5", 10, Some(Some(3..6))),
            ("3:99", 10, Some(Some(3..10))),
            ("-4:*", 10, Some(Some(6..10))),
            ("-40:*", 10, Some(Some(0..10))),
            ("2:-3", 10, Some(Some(2..8))),
            ("-4:-3", 10, Some(Some(6..8))),
            ("-4:3", 10, Some(Some(6..6))),
            ("8:-9", 10, Some(Some(8..8))),
            ("0:-99", 10, Some(Some(0..0))),
            ("9:*", 10, Some(Some(9..10))),
            ("10:*", 10, Some(None)),
            ("10:20", 10, Some(None)),
            ("0:*", 0, Some(Some(0..0))),
            ("0:5", 0, Some(Some(0..0))),
            ("-9223372036854775808:9223372036854775807", 10, Some(Some(0..10))),
            ("5:3", 10, None),
            ("-3:-4", 10, None),
            ("*:5", 10, None),
            ("5", 10, None),
            (":", 10, None),
            ("1.5:2", 10, None),
            ("0:9223372036854775808", 10, None),
        ] {
            let range = EntityBytes::parse(text).map(|bytes| bytes.within(size).ok());
            assert_eq!(range, expected, "{text}");
        }
    }

    #[test]
    fn the_form_follows_the_header_and_before_it_the_url() {
        const RAW: &str = "application/vnd.ipld.raw";
        const CAR: &str = "application/vnd.ipld.car";
        const BAD: Result<Form, StatusCode> = Err(StatusCode::BAD_REQUEST);
        const NONE: Result<Form, StatusCode> = Err(StatusCode::NOT_ACCEPTABLE);
        let bytes = CarScope::Bytes(EntityBytes { from: 1, to: Some(-2) });
        for (accept, query, expected) in [
            ("", &[][..], Ok(Form::Plain)),
            ("*/*", &[], Ok(Form::Plain)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", &[], Ok(Form::Plain)),
            (RAW, &[], Ok(Form::Raw)),
            (&format!("{RAW}, */*;q=0.1"), &[], Ok(Form::Raw)),
            (&format!("{RAW};q=0.1, {CAR}"), &[], car(CarScope::All, false)),
            (&format!("{RAW};q=0, */*"), &[], Ok(Form::Plain)),
            (CAR, &[], car(CarScope::All, false)),
            (&format!("{CAR}; version=1; order=dfs; dups=y"), &[], car(CarScope::All, true)),
            (&format!("{CAR};order=unk;dups=n"), &[], car(CarScope::All, false)),
            (&format!("{CAR};order=foo, {CAR};order=dfs;dups=y;q=0.5"), &[], car(CarScope::All, true)),
            (&format!("{CAR};version=2"), &[], NONE),
            (&format!("{CAR};order=foo"), &[], NONE),
            (&format!("{CAR};dups=maybe"), &[], NONE),
            (&format!("{CAR};version=2, {RAW}"), &[], Ok(Form::Raw)),
            ("application/vnd.ipld.dag-json", &[], NONE),
            ("application/x-tar, */*;q=0.1", &[], Ok(Form::Plain)),
            (CAR, &[("format", "raw")], Ok(Form::Raw)),
            (RAW, &[("format", "car")], car(CarScope::All, false)),
            (&format!("{CAR};dups=y"), &[("format", "car")], car(CarScope::All, true)),
            (&format!("{CAR};dups=y"), &[("format", "car"), ("car-dups", "n")], car(CarScope::All, false)),
            (&format!("{CAR};order=foo"), &[("format", "car")], NONE),
            ("", &[("format", "car"), ("car-version", "1"), ("car-order", "dfs")], car(CarScope::All, false)),
            ("", &[("format", "car"), ("car-version", "2")], BAD),
            ("", &[("format", "car"), ("car-order", "bfs")], BAD),
            ("", &[("format", "car"), ("dag-scope", "block")], car(CarScope::Block, false)),
            ("", &[("format", "car"), ("dag-scope", "entity")], car(CarScope::Entity, false)),
            ("", &[("format", "car"), ("dag-scope", "some")], BAD),
            ("", &[("format", "car"), ("entity-bytes", "1:-2")], car(bytes, false)),
            ("", &[("format", "car"), ("dag-scope", "all"), ("entity-bytes", "1:-2")], car(bytes, false)),
            ("", &[("format", "car"), ("entity-bytes", "2:1")], BAD),
            ("", &[("format", "raw"), ("dag-scope", "some")], Ok(Form::Raw)),
            ("", &[("format", "tar")], NONE),
            ("", &[("format", "dag-json")], NONE),
            ("", &[("format", "ipns-record")], BAD),
            ("", &[("format", "nonsense")], BAD),
        ] {
            assert_eq!(form(accept, query), expected, "{accept} {query:?}");
        }
    }

    #[test]
    fn identity_names_of_plain_bytes_are_taken_for_what_they_hold() {
        let hello = Root::Inline { cid: [&[0x01, 0x55, 0x00, 0x05][..], b"hello"].concat(), bytes: b"hello".to_vec() };
        assert_eq!(hello.to_string(), "bafkqablimvwgy3y");
        assert_eq!(Root::parse("bafkqablimvwgy3y").expect("identity"), hello);
        let empty = Root::parse("bafkqaaa").expect("the probe");
        assert_eq!(
            (empty.to_string(), empty),
            ("bafkqaaa".to_owned(), Root::Inline { cid: vec![1, 0x55, 0, 0], bytes: vec![] })
        );
        for text in ["bafyaaaa", "bafyqaaa", "bafkqaa", "bafkqaba", "bafkqaaaa", "nonsense", ""] {
            assert!(Root::parse(text).is_err(), "{text}");
        }
    }
}
