// Says whether the file that is named could be written now.
import Sqlite from 'better-sqlite3';

const database = new Sqlite(process.argv[2], { timeout: 0 });
let said = 'written';
try {
  database.exec('BEGIN IMMEDIATE');
} catch (error) {
  said = error.code;
}
process.send(said, () => process.exit());
