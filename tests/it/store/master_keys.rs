//! What is known of master keys, and keys sealed anew.

use catalog_sync::{
    project::SealedKey,
    store::{Error, Resealed, SealedWith, Store},
};

use super::sample::{add, at, id, key_of, project};

fn sealed_with(master_key_id: &str, sealed: &[u8]) -> SealedKey {
    SealedKey {
        master_key_id: master_key_id.to_owned(),
        sealed: sealed.to_vec(),
        ..key_of(&project("acme"))
    }
}

/// Adds a project whose key is sealed with this master key.
async fn add_with(store: &dyn Store, name: &str, master_key_id: &str) {
    let key = sealed_with(master_key_id, name.as_bytes());
    store.add_project(&project(name), &key).await.unwrap();
}

pub(crate) async fn what_tells_a_master_key_from_another_is_noted_once(store: &dyn Store) {
    assert_eq!(store.list_master_keys().await.unwrap(), []);
    assert_eq!(store.note_master_key("a", "01", at(0)).await.unwrap(), "01");
    assert_eq!(store.note_master_key("a", "02", at(1)).await.unwrap(), "01");
    let known = &store.list_master_keys().await.unwrap()[0];
    assert_eq!(
        (&*known.id, known.check_value.as_deref()),
        ("a", Some("01"))
    );
    assert_eq!((known.first_seen_at, known.retired_at), (Some(at(0)), None));
    assert_eq!(known.api_keys, 0);
}

pub(crate) async fn each_master_key_tells_how_many_keys_it_seals(store: &dyn Store) {
    for (name, master_key_id) in [("p1", "a"), ("p2", "b"), ("p3", "a")] {
        add_with(store, name, master_key_id).await;
    }
    store.note_master_key("a", "01", at(0)).await.unwrap();
    store.note_master_key("c", "03", at(1)).await.unwrap();
    let known = store.list_master_keys().await.unwrap();
    let mut counts: Vec<_> = known
        .iter()
        .map(|known| (&*known.id, known.api_keys, known.check_value.is_some()))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [("a", 2, true), ("b", 1, false), ("c", 0, true)]);
    store.remove_project(&id("p1")).await.unwrap();
    let known = store.list_master_keys().await.unwrap();
    assert_eq!(known.iter().map(|known| known.api_keys).sum::<u64>(), 2);
}

pub(crate) async fn a_master_key_in_use_is_not_retired(store: &dyn Store) {
    store.note_master_key("a", "01", at(0)).await.unwrap();
    add_with(store, "p1", "a").await;
    let error = store.retire_master_key("a", at(1)).await.unwrap_err();
    assert!(
        matches!(error, Error::MasterKeyInUse { api_keys: 1, .. }),
        "{error}"
    );
    assert_eq!(store.list_master_keys().await.unwrap()[0].retired_at, None);
    let error = store.retire_master_key("z", at(1)).await.unwrap_err();
    assert!(matches!(error, Error::UnknownMasterKey(_)), "{error}");

    store.remove_project(&id("p1")).await.unwrap();
    store.retire_master_key("a", at(2)).await.unwrap();
    store.retire_master_key("a", at(3)).await.unwrap();
    let known = store.list_master_keys().await.unwrap();
    assert_eq!(known[0].retired_at, Some(at(2)));
}

pub(crate) async fn nothing_is_sealed_with_a_retired_master_key(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let before = store.load_key(&acme).await.unwrap();
    store.note_master_key("old", "01", at(0)).await.unwrap();
    store.retire_master_key("old", at(1)).await.unwrap();

    let refused = [
        store
            .add_project(&project("new"), &sealed_with("old", b"x"))
            .await,
        store
            .replace_key(
                &acme,
                &project("acme").app,
                &sealed_with("old", b"x"),
                at(2),
            )
            .await,
        store
            .reseal(&[Resealed {
                project: acme.clone(),
                before: before.clone(),
                after: sealed_with("old", b"x"),
            }])
            .await
            .map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, Error::MasterKeyRetired(id) if id == "old"),
            "{error}"
        );
    }
    assert_eq!(store.load_key(&acme).await.unwrap(), before);
    assert_eq!(store.list_projects().await.unwrap().len(), 1);
}

pub(crate) async fn sealed_keys_are_listed_by_what_seals_them(store: &dyn Store) {
    for (name, master_key_id) in [
        ("p1", "a"),
        ("p2", "b"),
        ("p3", "a"),
        ("p4", "c"),
        ("p5", "a"),
    ] {
        add_with(store, name, master_key_id).await;
    }
    let listed = async |with, after: Option<&str>, most| {
        let after = after.map(id);
        let listed = store.list_sealed(with, after.as_ref(), most).await.unwrap();
        let listed: Vec<_> = listed
            .into_iter()
            .map(|(project, key)| {
                assert_eq!(key.sealed, project.as_str().as_bytes());
                project.to_string()
            })
            .collect();
        listed.join(" ")
    };
    assert_eq!(listed(SealedWith::This("a"), None, 10).await, "p1 p3 p5");
    assert_eq!(listed(SealedWith::This("a"), None, 2).await, "p1 p3");
    assert_eq!(listed(SealedWith::This("a"), Some("p1"), 1).await, "p3");
    assert_eq!(listed(SealedWith::AnyBut("a"), None, 10).await, "p2 p4");
    assert_eq!(listed(SealedWith::AnyBut("a"), Some("p2"), 10).await, "p4");
    assert_eq!(listed(SealedWith::AnyBut("a"), Some("p4"), 10).await, "");
}

pub(crate) async fn a_key_that_was_replaced_meanwhile_is_left_alone(store: &dyn Store) {
    for name in ["p1", "p2", "p3"] {
        add_with(store, name, "a").await;
    }
    let batch: Vec<_> = store
        .list_sealed(SealedWith::AnyBut("b"), None, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|(project, before)| Resealed {
            after: sealed_with("b", b"anew"),
            project,
            before,
        })
        .collect();
    let replaced = sealed_with("a", b"another");
    store
        .replace_key(&id("p2"), &project("p2").app, &replaced, at(0))
        .await
        .unwrap();
    store.remove_project(&id("p3")).await.unwrap();
    assert_eq!(store.reseal(&batch).await.unwrap(), 1);
    assert_eq!(
        store.load_key(&id("p1")).await.unwrap(),
        sealed_with("b", b"anew")
    );
    assert_eq!(store.load_key(&id("p2")).await.unwrap(), replaced);
    assert_eq!(store.reseal(&batch).await.unwrap(), 0, "again");
    assert_eq!(store.reseal(&[]).await.unwrap(), 0);
}
