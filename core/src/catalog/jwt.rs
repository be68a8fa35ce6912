//! Signed JSON Web Tokens (RFC 7519): HS256, RS256 and ES256, verified with `ring`.
//!
//! The algorithm is the one that the catalog declares: a token never chooses how it is verified.

use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::Value;

use super::document::invalid;
use crate::Result;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Shortest shared secret of HS256, in bytes (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;

/// A key with the one algorithm that it is used for.
pub(super) enum Key {
    Hs256(hmac::Key),
    /// A public key as ring wants it.
    Rs256(Vec<u8>),
    Es256(Vec<u8>),
}

/// What a token must say besides being signed.
pub(super) struct Expected<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) audience: Option<&'a str>,
    /// Seconds by which clocks may differ.
    pub(super) leeway: u64,
}

/// What is used of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) subject: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Payload {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<Value>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Key {
    /// A shared secret for HS256, a public key in PEM (`BEGIN PUBLIC KEY`) for RS256 and ES256.
    pub(super) fn read(algorithm: &str, key: &str) -> Result<Self> {
        match algorithm.to_ascii_uppercase().as_str() {
            "HS256" if key.len() < MIN_SECRET => Err(invalid(
                "key",
                format!("the secret has {} bytes, HS256 needs {MIN_SECRET}", key.len()),
                "use a longer secret, made at random",
            )),
            "HS256" => Ok(Self::Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))),
            "RS256" => public_key(key).map(Self::Rs256),
            "ES256" => public_key(key).map(Self::Es256),
            _ => Err(invalid("alg", "no such algorithm is served", "use HS256, RS256 or ES256")),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        let public = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
        };
        match self {
            Self::Hs256(key) => hmac::verify(key, signed, signature).is_ok(),
            Self::Rs256(key) => public(&signature::RSA_PKCS1_2048_8192_SHA256, key),
            Self::Es256(key) => public(&signature::ECDSA_P256_SHA256_FIXED, key),
        }
    }
}

/// Verifies a token at a time (seconds since the Unix epoch). The error says why not, in words that show nothing of it.
pub(super) fn verify(token: &str, key: &Key, expected: &Expected<'_>, now: i64) -> Result<Claims, &'static str> {
    const MALFORMED: &str = "the token is not a signed JWT";
    if token.len() > MAX_TOKEN {
        return Err("the token is too long");
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
    let header: Header = serde_json::from_slice(&decode(header).ok_or(MALFORMED)?).map_err(|_| MALFORMED)?;
    if header.alg != key.name() {
        return Err("the token is signed with another algorithm than is declared");
    }
    if header.crit.is_some() {
        return Err("the token asks for an extension that is not served");
    }
    if !key.verifies(signed.as_bytes(), &decode(signature).ok_or(MALFORMED)?) {
        return Err("the signature does not match");
    }
    let payload: Payload = serde_json::from_slice(&decode(payload).ok_or(MALFORMED)?).map_err(|_| MALFORMED)?;
    #[allow(clippy::cast_precision_loss)]
    let (now, leeway) = (now as f64, expected.leeway as f64);
    if payload.exp.is_some_and(|exp| exp + leeway <= now) {
        return Err("the token has expired");
    }
    if payload.nbf.is_some_and(|nbf| nbf - leeway > now) {
        return Err("the token is not valid yet");
    }
    if expected.issuer.is_some_and(|issuer| payload.iss.as_deref() != Some(issuer)) {
        return Err("the token is from another issuer");
    }
    let is_for = |wanted: &str| match &payload.aud {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(many)) => many.iter().any(|one| one == wanted),
        _ => false,
    };
    if expected.audience.is_some_and(|audience| !is_for(audience)) {
        return Err("the token is for another audience");
    }
    Ok(Claims { subject: payload.sub })
}

/// Base64url without padding, as JWS has it (RFC 7515).
fn decode(text: &str) -> Option<Vec<u8>> {
    decode_with(text, |byte| match byte {
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    })
}

fn decode_with(text: &str, special: impl Fn(u8) -> Option<u32>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => u32::from(byte - b'A'),
            b'a'..=b'z' => u32::from(byte - b'a') + 26,
            b'0'..=b'9' => u32::from(byte - b'0') + 52,
            other => special(other)?,
        };
        buffer = (buffer << 6) | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from((buffer >> bits) & 0xff).ok()?);
        }
    }
    // Left-over bits must be zero, and one character alone means nothing.
    (bits < 6 && buffer & ((1 << bits) - 1) == 0).then_some(out)
}

/// The key inside a PEM `PUBLIC KEY`: the bit string of its `SubjectPublicKeyInfo` (RFC 5280).
fn public_key(pem: &str) -> Result<Vec<u8>> {
    let refuse = || invalid("key", "this is not a public key in PEM", "begin with -----BEGIN PUBLIC KEY-----");
    // Environment variables often hold \n in two characters.
    let pem = pem.replace("\\n", "\n");
    let body =
        pem.split_once("-----BEGIN PUBLIC KEY-----").and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"));
    let (body, _) = body.ok_or_else(refuse)?;
    let text: String = body.chars().filter(|c| !c.is_ascii_whitespace() && *c != '=').collect();
    let der = decode_with(&text, |byte| match byte {
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let der = der.ok_or_else(refuse)?;
    let info = element(&der, 0x30).map(|(info, _)| info).ok_or_else(refuse)?;
    let (_algorithm, rest) = element(info, 0x30).ok_or_else(refuse)?;
    let (bits, _) = element(rest, 0x03).ok_or_else(refuse)?;
    // The first byte counts unused bits: none.
    bits.strip_prefix(&[0]).map(<[u8]>::to_vec).ok_or_else(refuse)
}

/// The contents of a DER element of this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
