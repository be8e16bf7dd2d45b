//! Limits that a project has of its own.

use catalog_sync::catalog::{Limits, OwnLimits};

#[test]
fn a_limit_of_its_own_stands_in_for_that_of_all() {
    let all = Limits::default();
    assert_eq!(all.with(&OwnLimits::default()), all);
    let own = OwnLimits {
        removed_percent: Some(0),
        descendants_max: Some(99),
        ..OwnLimits::default()
    };
    let expected = Limits {
        removed_percent: 0,
        descendants_max: 99,
        ..all
    };
    assert_eq!(all.with(&own), expected);
    let every = OwnLimits {
        removed_percent: Some(1),
        percent_from: Some(2),
        removed_max: Some(3),
        descendants_max: Some(4),
    };
    let expected = Limits {
        removed_percent: 1,
        percent_from: 2,
        removed_max: 3,
        descendants_max: 4,
    };
    assert_eq!(all.with(&every), expected);
}

#[test]
fn limits_that_are_set_anew_leave_the_others() {
    let before = OwnLimits {
        removed_percent: Some(1),
        percent_from: Some(2),
        ..OwnLimits::default()
    };
    let set = OwnLimits {
        percent_from: Some(0),
        removed_max: Some(3),
        ..OwnLimits::default()
    };
    let expected = OwnLimits {
        removed_percent: Some(1),
        percent_from: Some(0),
        removed_max: Some(3),
        descendants_max: None,
    };
    assert_eq!(set.or(&before), expected);
}

#[test]
fn limits_of_which_none_is_set_are_empty() {
    assert!(OwnLimits::default().is_empty());
    let one = OwnLimits {
        descendants_max: Some(0),
        ..OwnLimits::default()
    };
    assert!(!one.is_empty());
}
