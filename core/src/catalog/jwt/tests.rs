use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::KeyPair as _;

use super::*;

/// Made with OpenSSL, so that not everything here is checked against itself.
const RSA_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzL0r3+V5UFwCa/A8mY2q
J60q05qgM21d2QcRsNmo+YkgbVUQVixVBObFaKE46m+ZmsSrwWCFL0Z9QKvbYtDN
UcKMmvGynDPR/f2bkEJpqupQcu7i0uu5FpqEOKSB/+RFeo+ces/BGA0vp/EUBkzc
mFDmIwMybEYHpoIOtttUVl7ImDBNpIrRXI9bHpHW2XbYmwsJ6FA+wfz7AVcYrC6Y
5BFhPzJzcG1opY1+LYIiX/sJHIfz0QQqXnqbWU5jvGt54xq/ZgRJDiTEt/m80ORu
XrybN/z/EIUymPXHbvqBhhDibcAc41sEgiEyWNT1l94R+5F6a01wSWttae46C8bE
nwIDAQAB
-----END PUBLIC KEY-----";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1c2VyLTciLCJpc3MiOiJzaG9wIiwiYXVkIjpbIm9yZGVycyIsIngiXSwiZXhwIjo0MTAyNDQ0ODAwfQ.p4xUjUVdCb6ELvbU0ajmMWYDCibwt9gOIc6p3dY14K1qhp0vBf7aFEfHVs2y-857Ha_bO2vs3htMpMrKoUAnS9IGDS6crpGfB7TVMxPSt8BAGUvrqlzbXVH7FZRIYLZHvKd5-aX8wzUZPig5S2d4EDRIF5FcX1Qlph9cuuaivTSxR78IGIdH87lUmjYXDY9IY4-ZE9O3YeQlHceaXRqsBvxPEnA4bJEEGaCIcirG81sXEVeD1ytzZwQocx8_ia2h1xaL9rEKiDorkaKXWb32kJ_RfZnmKXfSEKoiLNytqtgNw3rdqGtIY5CeWoBslbSto-xad-876Fcl8D5kSazIeg";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ANY: Expected<'_> = Expected { issuer: None, audience: None, leeway: 0 };

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for at in 0..=chunk.len() {
            out.push(char::from(alphabet[(word >> (18 - 6 * at)) as usize & 63]));
        }
    }
    out
}

fn base64url(bytes: &[u8]) -> String {
    encode(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}

fn signed(header: &str, payload: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
    let signature = sign(text.as_bytes());
    format!("{text}.{}", base64url(&signature))
}

fn hs256(secret: &str, header: &str, payload: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    signed(header, payload, |text| hmac::sign(&key, text).as_ref().to_vec())
}

#[test]
fn a_token_of_openssl_is_verified() {
    for pem in [RSA_KEY.to_owned(), RSA_KEY.replace('\n', "\\n")] {
        let key = Key::read("rs256", &pem).unwrap();
        let expected = Expected { issuer: Some("shop"), audience: Some("orders"), leeway: 0 };
        assert_eq!(verify(RSA_TOKEN, &key, &expected, 0), Ok(Claims { subject: Some("user-7".to_owned()) }));
        assert!(verify(RSA_TOKEN, &key, &Expected { issuer: Some("other"), ..ANY }, 0).is_err());
        assert!(verify(RSA_TOKEN, &key, &Expected { audience: Some("order"), ..ANY }, 0).is_err());
        assert_eq!(verify(RSA_TOKEN, &key, &ANY, 4_102_444_800), Err("the token has expired"));
    }
}

#[test]
fn es256() {
    let random = SystemRandom::new();
    let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    // The fixed head of a P-256 SubjectPublicKeyInfo.
    let mut info = vec![0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8];
    info.extend([0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0]);
    info.extend(pair.public_key().as_ref());
    let body = encode(&info, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    let key = Key::read("ES256", &format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----")).unwrap();
    let token =
        signed(r#"{"alg":"ES256"}"#, r#"{"sub":"a"}"#, |text| pair.sign(&random, text).unwrap().as_ref().to_vec());
    assert_eq!(verify(&token, &key, &ANY, 0), Ok(Claims { subject: Some("a".to_owned()) }));
    assert!(verify(&hs256(SECRET, r#"{"alg":"ES256"}"#, "{}"), &key, &ANY, 0).is_err());
}

#[test]
fn a_token_does_not_choose_its_algorithm() {
    let key = Key::read("HS256", SECRET).unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"RS256"}"#, r#"{"alg":"HS256","crit":["x"]}"#, "{}", "[]", ""] {
        assert!(verify(&hs256(SECRET, header, "{}"), &key, &ANY, 0).is_err(), "{header}");
    }
    // The public key as a shared secret, the classic confusion.
    let rsa = Key::read("RS256", RSA_KEY).unwrap();
    assert!(verify(&hs256(RSA_KEY, r#"{"alg":"HS256"}"#, "{}"), &rsa, &ANY, 0).is_err());
}

#[test]
fn times_are_kept_to() {
    let key = Key::read("HS256", SECRET).unwrap();
    let token = hs256(SECRET, r#"{"alg":"HS256"}"#, r#"{"exp":100,"nbf":50}"#);
    let at = |now, leeway| verify(&token, &key, &Expected { leeway, ..ANY }, now).map(drop);
    assert_eq!(at(50, 0), Ok(()));
    assert_eq!(at(100, 0), Err("the token has expired"));
    assert_eq!(at(100, 1), Ok(()));
    assert_eq!(at(49, 0), Err("the token is not valid yet"));
    assert_eq!(at(49, 1), Ok(()));
}

#[test]
fn bad_keys_are_refused_without_being_shown() {
    for (algorithm, key) in
        [("HS256", "short"), ("RS256", "hush-hush"), ("ES256", SECRET), ("none", SECRET), ("EdDSA", RSA_KEY)]
    {
        let error = Key::read(algorithm, key).err().unwrap();
        assert_eq!(error.code(), "CATALOG_INVALID");
        assert!(!error.to_string().contains(key), "{error}");
    }
}

proptest! {
    #[test]
    fn a_changed_token_is_rejected(at in 0..RSA_TOKEN.len(), with in "[A-Za-z0-9._-]") {
        let mut token = RSA_TOKEN.to_owned();
        token.replace_range(at..=at, &with);
        let key = Key::read("RS256", RSA_KEY).unwrap();
        prop_assert_eq!(verify(&token, &key, &ANY, 0).is_ok(), token == RSA_TOKEN);
    }

    #[test]
    fn any_text_is_rejected(token in "[A-Za-z0-9._=-]{0,60}|\\PC{0,40}", pem in "\\PC{0,60}") {
        let key = Key::read("HS256", SECRET).unwrap();
        prop_assert!(verify(&token, &key, &ANY, 0).is_err());
        let pem = format!("-----BEGIN PUBLIC KEY-----{pem}-----END PUBLIC KEY-----");
        if let Ok(key) = Key::read("RS256", &pem) {
            prop_assert!(verify(&token, &key, &ANY, 0).is_err());
        }
    }

    #[test]
    fn der_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _any = element(&bytes, 0x30).and_then(|(inner, _)| element(inner, 0x03));
    }
}
