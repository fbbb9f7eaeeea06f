//! Addresses of nodes, as people write them.

use std::net::IpAddr;

/// Two ways to write one address are equal.
pub fn same_address(one: &str, two: &str) -> bool {
    match (one.parse::<IpAddr>(), two.parse::<IpAddr>()) {
        (Ok(one), Ok(two)) => one == two,
        _ => one.eq_ignore_ascii_case(two),
    }
}

/// Each address once, as it is written first: lists of nodes that people keep by hand name some twice.
pub fn distinct(addresses: &[String]) -> Vec<String> {
    distinct_by(addresses.to_vec(), String::as_str)
}

/// The first of all that have one address.
pub fn distinct_by<T>(all: Vec<T>, address: impl Fn(&T) -> &str) -> Vec<T> {
    let mut once: Vec<T> = Vec::new();
    for one in all {
        if !once.iter().any(|known| same_address(address(known), address(&one))) {
            once.push(one);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_written_in_two_ways_is_one() {
        let of =
            |addresses: &[&str]| distinct(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            of(&["10.5.0.2", "fd00::1", "10.5.0.2", "fd00:0::1", "N1", "n1"]),
            ["10.5.0.2", "fd00::1", "N1"]
        );
    }
}
