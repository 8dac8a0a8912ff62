// Vercel's AI SDK with its default model of OpenAI, which is one of the Responses API.
import {createOpenAI} from "@ai-sdk/openai";
import {Output, generateText, isStepCount, streamText, tool} from "ai";
import {z} from "zod";
import {BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed} from "./cases.mjs";

const model = createOpenAI({baseURL: BASE_URL, apiKey: KEY})(MODEL);
const Person = z.object({name: z.string(), age: z.int()});
const adder = {add: tool({
  description: "Add two numbers.", inputSchema: z.object({a: z.int(), b: z.int()}), execute: given => add(given),
})};

async function chat() {
  return {text: (await generateText({model, prompt: HELLO})).text};
}

async function stream() {
  return streamed(streamText({model, prompt: HELLO}).textStream);
}

async function tools() {
  const {text} = await generateText({model, prompt: SUM, tools: adder, stopWhen: isStepCount(5)});
  return {text, called};
}

async function structured() {
  return (await generateText({model, prompt: WHO, output: Output.object({schema: Person})})).output;
}

async function spent() {
  const poor = createOpenAI({baseURL: BASE_URL, apiKey: SPENT_KEY})(MODEL);
  return refused(() => generateText({model: poor, prompt: HELLO}), error => error.statusCode, error => error.name);
}

// the messages of each turn are given back as the SDK gave them: OpenAI's items by reference
async function turns() {
  const messages = [], texts = [];
  for (const content of SUMS) {
    messages.push({role: "user", content});
    const said = await generateText({model, messages, tools: adder, stopWhen: isStepCount(5)});
    messages.push(...said.response.messages);
    texts.push(said.text);
  }
  return {texts, called};
}

run({chat, stream, tools, structured, spent, turns});
