-- What the end of a session has removed, as JSON.
ALTER TABLE sessions ADD COLUMN receipt TEXT;
