use super::*;

const MASTER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "IB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=";
const ISSUER: &str = "69a6de7f-0000-47e3-e053-5b8c7c11a4d1";
const PEM: &[u8] = include_bytes!("../../tests/fixtures/p256.pem");

/// Made by another program after the description of the format above: what opens today must always open.
const KNOWN: &str = "AQlrMjAyNjExMjPIycrLzM3Oz9DR0tN1HQe87qWRSxhRcdFud5lnlPKa33wS0l+R1EWeWhApaj49xNoGGUbpzVTXMlsmVs\
    nc3d7f4OHi4+Tl5ueQiRaovaUIUdwsaUmWYirYDZF4q/AqJT/aSBW0fEwZNpPbbYmAC6zgeS6EBDCk0oGQSgS8mHbY/BnTIMGL/ViFgEwlQqzi2k\
    D3tGC92ZsNKfTJaDf4bBYRNER+8AH3rCwZAtIQCY+vVKT9WqHXtdsnRaA2b1uF+d55uez1a4elF8P9s0v8merugR7QH5gCrP+QU9EqfvD5yH44";
const KNOWN_INDIVIDUAL: &str = "AQlrMjAyNjExMjPIycrLzM3Oz9DR0tN1HQe87qWRSxhRcdFud5lnlPKa33wS0l+R1EWeWhApaiXD2Jql7S84\
    s09Cxhe77//c3d7f4OHi4+Tl5ueQiRaovaUIUdwsaUmWYirYDZF4q/AqJT/aSBW0fEwZNpPbbYmAC6zgeS6EBDCk0oGQSgS8mHbY/BnTIMGL/ViF\
    gEwlQqzi2kD3tGC92ZsNKfTJaDf4bBYRNER+8AH3rCwZAtIQCY+vVKT9WqHXtdsnRaA2b1uF+d55uez1a4elF8P9s0v8merugR7wbcBUEh215mpb\
    VmoMKGVj";

fn vault(text: &str) -> Vault {
    Vault::of_text(text)
}

fn the_vault() -> Vault {
    vault(&format!("k20261123:{MASTER}"))
}

fn acme() -> ProjectId {
    "acme".parse().unwrap()
}

fn credential(issuer_id: Option<&str>) -> Credential {
    crate::credential::read(crate::credential::Given {
        key_id: Some("2X9R4HXF34"),
        issuer_id,
        private_key: Some(PEM),
        file_name: None,
    })
    .unwrap()
}

fn known(base64: &str, issuer_id: Option<&str>) -> SealedKey {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    SealedKey {
        key_id: "2X9R4HXF34".to_owned(),
        issuer_id: issuer_id.map(str::to_owned),
        master_key_id: "k20261123".to_owned(),
        sealed: STANDARD.decode(base64).unwrap(),
    }
}

#[test]
fn what_was_sealed_once_always_opens() {
    for (base64, issuer_id) in [(KNOWN, Some(ISSUER)), (KNOWN_INDIVIDUAL, None)] {
        let opened = the_vault()
            .unseal(&acme(), &known(base64, issuer_id))
            .unwrap();
        assert_eq!(opened.private_key.der(), credential(None).private_key.der());
        assert_eq!(opened.key_id, "2X9R4HXF34");
        assert_eq!(opened.issuer_id.as_deref(), issuer_id);
    }
}

#[test]
fn sealing_and_unsealing_gives_the_same() {
    for issuer_id in [Some(ISSUER), None] {
        let given = credential(issuer_id);
        let sealed = the_vault().seal(&acme(), &given).unwrap();
        assert_eq!(sealed.master_key_id, "k20261123");
        let opened = the_vault().unseal(&acme(), &sealed).unwrap();
        assert_eq!(opened.private_key.der(), given.private_key.der());
        assert_eq!(opened.issuer_id.as_deref(), issuer_id);
    }
}

#[test]
fn the_same_key_is_never_sealed_to_the_same_bytes() {
    let parts = |sealed: &[u8]| {
        [
            sealed[11..23].to_vec(),
            sealed[23..71].to_vec(),
            sealed[71..83].to_vec(),
            sealed[83..].to_vec(),
        ]
    };
    let [one, two] = [(); 2].map(|()| the_vault().seal(&acme(), &credential(None)).unwrap().sealed);
    for (one, two) in parts(&one).iter().zip(parts(&two)) {
        assert_ne!(*one, two);
    }
    let der = credential(None).private_key.der().to_vec();
    assert_eq!(one.len(), 2 + 9 + 12 + 48 + 12 + der.len() + 16);
    for window in der.windows(8) {
        assert!(!one.windows(8).any(|sealed| sealed == window));
    }
}

#[test]
fn every_secret_has_a_data_key_of_its_own() {
    let vault = the_vault();
    let bound = sealed::Bound {
        project: "acme",
        key_id: "2X9R4HXF34",
        issuer_id: None,
    };
    let [one, two] = [(); 2].map(|()| {
        let sealed = vault.seal(&acme(), &credential(None)).unwrap().sealed;
        let parts = sealed::Parts::parse(&sealed).unwrap();
        parts.data_key(vault.keyring().first(), &bound).unwrap()
    });
    assert_ne!(one.bytes(), two.bytes());
    assert!(
        [one, two]
            .iter()
            .all(|key| key.bytes().iter().any(|&byte| byte != 0))
    );
}

#[test]
fn a_key_moved_to_another_row_does_not_open() {
    let vault = the_vault();
    let sealed = vault.seal(&acme(), &credential(Some(ISSUER))).unwrap();
    let elsewhere = |project: &str, key_id: &str, issuer_id: Option<&str>| {
        vault.unseal(
            &project.parse().unwrap(),
            &SealedKey {
                key_id: key_id.to_owned(),
                issuer_id: issuer_id.map(str::to_owned),
                ..sealed.clone()
            },
        )
    };
    assert!(elsewhere("acme", "2X9R4HXF34", Some(ISSUER)).is_ok());
    for (project, key_id, issuer_id) in [
        ("acme2", "2X9R4HXF34", Some(ISSUER)),
        ("Acme", "2X9R4HXF34", Some(ISSUER)),
        ("acme", "2X9R4HXF35", Some(ISSUER)),
        ("acme", "2X9R4HXF34", None),
        ("acme", "2X9R4HXF34", Some("")),
        (
            "acme",
            "2X9R4HXF34",
            Some("69a6de7f-0000-47e3-e053-5b8c7c11a4d2"),
        ),
        // The lengths are part of what is bound, so that no text can move over a border.
        ("acme2", "X9R4HXF34", Some(ISSUER)),
    ] {
        let error = elsewhere(project, key_id, issuer_id).unwrap_err();
        assert!(
            matches!(error, Error::DoesNotOpen),
            "{project} {key_id} {issuer_id:?}: {error}"
        );
        assert_eq!(Diagnosis::from(&error).code, Code::KeySealed);
    }
}

#[test]
fn the_two_layers_do_not_stand_in_for_each_other() {
    // A data key that equals the master key would let a wrapped key pass as a secret, but for the two domains.
    let vault = the_vault();
    let mut key = known(KNOWN, Some(ISSUER));
    let (nonce, wrapped) = (key.sealed[11..23].to_vec(), key.sealed[23..71].to_vec());
    key.sealed.truncate(71);
    key.sealed.extend(nonce);
    key.sealed.extend(wrapped);
    assert!(vault.unseal(&acme(), &key).is_err());
    let bound = sealed::Bound {
        project: "acme",
        key_id: "2X9R4HXF34",
        issuer_id: None,
    };
    assert_ne!(
        bound.associated_data(sealed::DATA_KEY),
        bound.associated_data(sealed::PRIVATE_KEY)
    );
}

#[test]
fn any_flipped_bit_and_any_length_fails_cleanly() {
    let vault = the_vault();
    let original = known(KNOWN, Some(ISSUER));
    let opens = |sealed: Vec<u8>| {
        vault
            .unseal(
                &acme(),
                &SealedKey {
                    sealed,
                    ..original.clone()
                },
            )
            .is_ok()
    };
    for bit in 0..original.sealed.len() * 8 {
        let mut sealed = original.sealed.clone();
        sealed[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(sealed), "bit {bit}");
    }
    for length in 0..original.sealed.len() {
        assert!(
            !opens(original.sealed[..length].to_vec()),
            "length {length}"
        );
    }
    for length in 0..=64 {
        for byte in [0, 1, 0x30, 0xff] {
            assert!(!opens(vec![byte; length]), "{length} times {byte}");
        }
        assert!(!opens([[1, 0].as_slice(), &vec![0; length]].concat()));
        assert!(!opens(
            [original.sealed.as_slice(), &vec![0; length + 1]].concat()
        ));
    }
    assert!(opens(original.sealed.clone()));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(sealed in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), head in 0_usize..90) {
        let original = known(KNOWN, Some(ISSUER));
        let mixed = [original.sealed.get(..head).unwrap_or_default(), sealed.as_slice()].concat();
        for sealed in [sealed, mixed] {
            assert!(the_vault().unseal(&acme(), &SealedKey { sealed, ..original.clone() }).is_err());
        }
    }
}

#[test]
fn the_first_master_key_encrypts_and_all_decrypt() {
    let old = the_vault();
    let sealed = old.seal(&acme(), &credential(None)).unwrap();
    let both = vault(&format!(
        "# newest first\r\n\r\n new-1 : {OTHER} \r\nk20261123:{MASTER}"
    ));
    assert_eq!(both.master_key_ids(), ["new-1", "k20261123"]);
    assert!(both.unseal(&acme(), &sealed).is_ok());
    let newer = both.seal(&acme(), &credential(None)).unwrap();
    assert_eq!(newer.master_key_id, both.master_key_id());
    assert_eq!(newer.master_key_id, "new-1");

    let error = old.unseal(&acme(), &newer).unwrap_err();
    let diagnosis = Diagnosis::from(&error);
    assert_eq!(diagnosis.code, Code::KeySealed);
    assert_eq!(
        diagnosis.sentence,
        "The stored key cannot be opened: it was sealed with the master key 'new-1', which is not at hand (there are \
         k20261123)."
    );
    let impostor = vault(&format!("k20261123:{OTHER}"));
    assert!(matches!(
        impostor.unseal(&acme(), &sealed),
        Err(Error::DoesNotOpen)
    ));
}

#[test]
fn a_later_format_and_a_wrong_column_are_told() {
    let mut key = known(KNOWN, Some(ISSUER));
    key.sealed[0] = 2;
    assert!(matches!(
        the_vault().unseal(&acme(), &key),
        Err(Error::UnknownVersion { version: 2 })
    ));
    let key = SealedKey {
        master_key_id: "other".to_owned(),
        ..known(KNOWN, Some(ISSUER))
    };
    assert!(matches!(
        the_vault().unseal(&acme(), &key),
        Err(Error::DoesNotOpen)
    ));
}

#[test]
fn debug_shows_ids_alone() {
    assert_eq!(format!("{:?}", the_vault()), "Vault([\"k20261123\"])");
}

#[test]
fn a_key_sealed_anew_opens_with_the_new_master_key_alone() {
    let both = vault(&format!("new:{OTHER}\nk20261123:{MASTER}"));
    for (base64, issuer_id) in [(KNOWN, Some(ISSUER)), (KNOWN_INDIVIDUAL, None)] {
        let before = known(base64, issuer_id);
        let after = both.reseal(&acme(), &before).unwrap();
        assert_eq!(after.master_key_id, "new");
        let opened = vault(&format!("new:{OTHER}"))
            .unseal(&acme(), &after)
            .unwrap();
        assert_eq!(opened.private_key.der(), credential(None).private_key.der());
        assert!(matches!(
            the_vault().unseal(&acme(), &after),
            Err(Error::UnknownMasterKey { .. })
        ));
        // The private key's own ciphertext is carried over, and nothing of the data key's is.
        let secret = &before.sealed[71..];
        assert!(after.sealed.ends_with(secret));
        let wrapped = &before.sealed[11..71];
        assert!(
            !after
                .sealed
                .windows(8)
                .any(|window| wrapped.windows(8).any(|w| w == window))
        );
    }
}

#[test]
fn what_does_not_open_is_not_sealed_anew() {
    let both = vault(&format!("new:{OTHER}\nk20261123:{MASTER}"));
    let key = known(KNOWN, Some(ISSUER));
    let elsewhere = "acme2".parse().unwrap();
    assert!(matches!(
        both.reseal(&elsewhere, &key),
        Err(Error::DoesNotOpen)
    ));
    let alone = vault(&format!("new:{OTHER}"));
    assert!(matches!(
        alone.reseal(&acme(), &key),
        Err(Error::UnknownMasterKey { .. })
    ));
    for bit in 0..71 * 8 {
        let mut damaged = key.clone();
        damaged.sealed[bit / 8] ^= 1 << (bit % 8);
        assert!(both.reseal(&acme(), &damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_check_value_tells_keys_apart_and_stays_for_good() {
    let check_value = |text: &str| vault(text).master_keys().unwrap()[0].check_value.clone();
    // HKDF-SHA256 by another program: salt "catalog-sync key check 1", the id as its info, 16 bytes.
    let known = check_value(&format!("k20261123:{MASTER}"));
    assert_eq!(known, "45ebc6b8c149485ffd8991d051b054bd");
    assert_ne!(check_value(&format!("k20261123:{OTHER}")), known);
    assert_ne!(check_value(&format!("k20261124:{MASTER}")), known);
}
