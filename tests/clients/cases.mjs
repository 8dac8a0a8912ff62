// What the programs of the Node clients share: see tests/helpers/clients.py, which runs them.
import {createInterface} from "node:readline";

export const {BASE_URL, KEY, SPENT_KEY, MODEL} = process.env;
export const HELLO = "Hello", SUM = "What is 2 + 3?", WHO = "Who wrote the first program, and how old was she?";
export const SUMS = ["What is 1 + 2?", "What is 3 + 4?", "What is 5 + 6?"];
export const called = [];

export function add({a, b}) {
  called.push([a, b]);
  return a + b;
}

export async function streamed(pieces) {
  const texts = [];
  for await (const piece of pieces) if (piece) texts.push(piece);
  return {text: texts.join(""), several: texts.length > 1};
}

// what the client throws where the budget is spent: its name, the status, and whether it says why
export async function refused(call, status = error => error.status, name = error => error.constructor.name) {
  try {
    return {failed: `no error, but ${JSON.stringify(await call())}`};
  } catch (error) {
    const message = String(error.message);
    return {error: name(error), status: status(error), says: message.includes("tokens left of"), message};
  }
}

// do the cases whose names come line by line, and write what came of each as a line of JSON
export async function run(cases) {
  for await (const line of createInterface({input: process.stdin})) {
    called.length = 0;
    let found;
    try {
      found = await cases[line.trim()]();
    } catch (error) {
      found = {failed: String(error.stack ?? error).slice(0, 3000)};
    }
    process.stdout.write(JSON.stringify(found) + "\n");
  }
}
