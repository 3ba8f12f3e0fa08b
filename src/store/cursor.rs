//! Where a page of sessions ended, as the opaque text that a client sends back.

use super::{Result, StoreError};
use crate::wire::{Order, SessionId};

/// The place of a page's last session in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub order: Order,
    /// What the order sorts by: milliseconds since the Unix epoch.
    pub key: i64,
    pub id: SessionId,
}

impl Cursor {
    /// The cursor as hex digits.
    pub fn encode(&self) -> String {
        let order = match self.order {
            Order::Activity => 'a',
            Order::Created => 'c',
        };
        let plain = format!("{order}{}:{}", self.key, self.id.digits());
        plain.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a cursor back; one of another order is as wrong as one that is malformed.
    pub fn decode(text: &str, order: Order) -> Result<Self> {
        Self::read(text)
            .filter(|cursor| cursor.order == order)
            .ok_or_else(|| StoreError::Cursor(text.chars().take(200).collect()))
    }

    fn read(text: &str) -> Option<Self> {
        if text.len() > 256 || !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let bytes = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        let plain = String::from_utf8(bytes).ok()?;
        let (order, rest) = match plain.strip_prefix('a') {
            Some(rest) => (Order::Activity, rest),
            None => (Order::Created, plain.strip_prefix('c')?),
        };
        let (key, digits) = rest.split_once(':')?;
        Some(Self {
            order,
            key: key.parse().ok()?,
            id: format!("{}{digits}", SessionId::PREFIX).parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back_as_it_went(key in any::<i64>(), id in any::<u128>(), created in any::<bool>()) {
            let order = if created { Order::Created } else { Order::Activity };
            let cursor = Cursor { order, key, id: SessionId::from_random(id) };
            prop_assert_eq!(Cursor::decode(&cursor.encode(), order).ok(), Some(cursor));
        }

        #[test]
        fn no_text_breaks_it(text in ".*", order in any::<bool>()) {
            let order = if order { Order::Created } else { Order::Activity };
            prop_assert!(Cursor::decode(&text, order).is_err());
        }
    }
}
