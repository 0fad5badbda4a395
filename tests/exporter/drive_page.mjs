// Opens one page in headless Chromium and does what it is told, one step after the other.
//   node tests/exporter/drive_page.mjs OUT_DIR < PLAN.json
// The plan: {"url", "width", "height", "steps": [STEP, ...]}, each STEP one of
//   {"wait": "expression"}        until it is true
//   {"click": "selector"}         as a person clicks
//   {"slide": ["selector", 0.5]}  a range input, with its input event
//   {"run": "expression"}         its value goes into the answer
//   {"shot": "name"}              a screenshot, OUT_DIR/name.png
// On standard output: {"browser", "problems", "requests", "values"} as JSON, problems being every error and warning of
// the console, of the page and of the network. Chromium is $CHROMIUM or the one on the path. Exit code 3: none.
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { chromium } from 'playwright-core';

const [out] = process.argv.slice(2);
const executablePath = [
  process.env.CHROMIUM,
  ...process.env.PATH.split(delimiter).flatMap((folder) =>
    ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name)),
  ),
].find((path) => path && existsSync(path));
if (!executablePath) {
  console.error('Chromium: not on the path; install it or name it in $CHROMIUM');
  process.exit(3);
}

// Playwright's own waitForFunction evaluates text inside the page, which the page's policy forbids.
async function until(page, expression) {
  for (const deadline = Date.now() + 60_000; !(await page.evaluate(`Boolean(${expression})`)); ) {
    if (Date.now() > deadline) throw new Error(`waited 60 s for ${expression}; the page says: ${await page.innerText('body')}`);
    await page.waitForTimeout(50);
  }
}

const plan = JSON.parse(await text(process.stdin));

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
});
try {
  const page = await browser.newPage({ viewport: { width: plan.width, height: plan.height } });
  const [problems, requests, values] = [[], [], []];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (line) => ['error', 'warning'].includes(line.type()) && problems.push(line.text()));
  page.on('requestfailed', (request) => problems.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on('request', (request) => requests.push(request.url()));
  await page.goto(plan.url);
  for (const step of plan.steps) {
    if (step.wait) await until(page, step.wait);
    if (step.click) await page.click(step.click);
    if (step.slide) {
      await page.locator(step.slide[0]).evaluate((input, value) => {
        input.value = value;
        input.dispatchEvent(new Event('input', { bubbles: true }));
      }, step.slide[1]);
    }
    if (step.run) values.push((await page.evaluate(step.run)) ?? null);
    if (step.shot) await page.screenshot({ path: join(out, `${step.shot}.png`) });
  }
  console.log(JSON.stringify({ browser: browser.version(), problems, requests, values }));
} finally {
  await browser.close();
}
