//! The platform over HTTP: routes, handlers by noun, errors to statuses.
