//! protojson's ways with scalars: what is written, and the other spellings that are read.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::proto::Timestamp;

/// Whether a number is the proto3 default, which is omitted.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// 64-bit numbers: written as decimal strings, read as strings or numbers; null is zero.
pub(super) mod u64 {
    use super::{Deserializer, Serializer, Visitor, de, fmt};

    pub(in crate::wire) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an unsigned 64-bit number, or one in a string")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
                Ok(value)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
                // 1.0 and 1e3 are whole numbers to protojson; beyond 2^53 only digits are exact.
                if value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value) {
                    return Ok(value as u64);
                }
                Err(E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<u64, E> {
                value.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
            }

            fn visit_unit<E: de::Error>(self) -> Result<u64, E> {
                Ok(0)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// Strings; null is empty.
pub(super) mod string {
    use super::{Deserialize, Deserializer, Serializer};

    pub(in crate::wire) fn serialize<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
        Ok(Option::deserialize(d)?.unwrap_or_default())
    }
}

/// Bytes: written as standard base64 with padding, read in either alphabet with or without
/// padding; null is empty.
pub(super) mod bytes {
    use ::bytes::Bytes;
    use base64::Engine;
    use base64::alphabet;
    use base64::engine::DecodePaddingMode;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

    use super::{Deserialize, Deserializer, Serializer, de};

    const ANY_PADDING: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const READ_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
    const READ_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

    pub(in crate::wire) fn serialize<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value))
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        parse(&Option::<String>::deserialize(d)?.unwrap_or_default())
    }

    pub(super) fn parse<E: de::Error>(text: &str) -> Result<Bytes, E> {
        let engine = if text.contains(['-', '_']) { READ_URL_SAFE } else { READ_STANDARD };
        engine.decode(text).map(Bytes::from).map_err(|error| E::custom(format!("not base64: {error}")))
    }

    pub(super) fn format(value: &Bytes) -> String {
        STANDARD.encode(value)
    }
}

/// Lists of bytes; null is empty.
pub(super) mod repeated_bytes {
    use ::bytes::Bytes;

    use super::{Deserialize, Deserializer, Serializer};

    pub(in crate::wire) fn serialize<S: Serializer>(values: &[Bytes], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(super::bytes::format))
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Bytes>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(d)?.unwrap_or_default();
        texts.iter().map(|text| super::bytes::parse(text)).collect()
    }
}

/// Lists of messages or strings; null is empty.
pub(super) fn repeated<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl Serialize for Timestamp {
    /// RFC 3339 in UTC with 0, 3, 6 or 9 digits of fraction, as protojson writes it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instant = jiff::Timestamp::new(self.seconds, 0).map_err(serde::ser::Error::custom)?;
        let nanos = u32::try_from(self.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let nanos = nanos.ok_or_else(|| serde::ser::Error::custom("the nanoseconds are out of range"))?;
        let seconds = instant.strftime("%Y-%m-%dT%H:%M:%S");
        let text = match nanos {
            0 => format!("{seconds}Z"),
            n if n % 1_000_000 == 0 => format!("{seconds}.{:03}Z", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{seconds}.{:06}Z", n / 1_000),
            n => format!("{seconds}.{n:09}Z"),
        };
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let instant: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        let nanos = instant.as_nanosecond();
        let (seconds, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
        Ok(Self {
            seconds: i64::try_from(seconds).map_err(de::Error::custom)?,
            nanos: i32::try_from(nanos).map_err(de::Error::custom)?,
        })
    }
}
