CREATE VIRTUAL TABLE notes_search USING fts5(title, body, content = 'notes', content_rowid = 'id');
INSERT INTO notes_search(notes_search) VALUES ('rebuild');

CREATE TRIGGER notes_added AFTER INSERT ON notes BEGIN
  INSERT INTO notes_search(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER notes_removed AFTER DELETE ON notes BEGIN
  INSERT INTO notes_search(notes_search, rowid, title, body)
  VALUES ('delete', old.id, old.title, old.body);
END;
CREATE TRIGGER notes_changed AFTER UPDATE ON notes BEGIN
  INSERT INTO notes_search(notes_search, rowid, title, body)
  VALUES ('delete', old.id, old.title, old.body);
  INSERT INTO notes_search(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
