"""Words that people, places and posts are made of."""

GIVEN_NAMES = """
Ada Agnes Aisha Alan Alba Alexei Alice Amara Amelia Amir Anders Andrea Anika Anna Anton Arjun Astrid Aurora Ayumi
Beatriz Ben Björn Bruno Camila Carlos Carmen Cecilia Chen Chiara Chidi Clara Conor Daniel Daria David Delia Diego
Dmitri Edith Eduardo Elena Eli Elif Emeka Emil Emma Erik Esther Eva Farah Fatima Felix Femi Finn Flora Francesca
Freya Gabriel Grace Greta Hana Hannah Haruto Hassan Helena Hugo Ida Ines Ingrid Irina Isaac Isabel Ivan Jakub James
Jana Jasmine Javier Jin Joana Johan Jonas Julia Kai Kamala Karim Katya Kenji Kira Kofi Lars Laura Leah Leila Leo
Lin Linnea Lorenzo Louise Lucia Luis Magnus Maja Malik Marco Margaret Maria Marta Mateo Maya Mei Mia Milan Min Mira
Mohamed Nadia Naomi Nia Nico Nikolai Nina Noah Noor Olga Oliver Omar Oscar Paula Pedro Petra Priya Rafael Rahul
Rania Ravi Rosa Ruth Samir Sara Sean Selma Sofia Stefan Sven Tara Teresa Theo Thomas Tomás Uma Valentina Vera
Viktor Wanjiru Wei Yara Yasmin Yuki Yusuf Zainab Zoe
""".split()

FAMILY_NAMES = """
Abara Abe Acosta Adeyemi Ahmed Almeida Andersen Bakker Banerjee Barros Becker Berg Bianchi Blake Boateng Borges
Brandt Byrne Campos Carlsen Castro Chandra Chang Chaudhry Chen Cohen Conti Costa Cruz Dahl Das Delgado Demir Diallo
Dubois Eide Eriksen Espinosa Farouk Fernandez Ferrari Fischer Fleming Fontana Fujita Gallo Garcia Gonzalez Gray
Greco Gupta Haddad Hansen Hayashi Hernandez Hoffmann Holm Horvath Hughes Ibrahim Inoue Ivanova Iyer Jansen Jensen
Johansson Joshi Kaplan Kariuki Kato Kaur Keller Khan Kim Kimura Kowalski Kovacs Kumar Larsen Laurent Lee Lehmann
Leone Li Lima Lindgren Lopez Lund Maier Malik Mancini Marin Martin Mbeki Mehta Mendes Meyer Mizuno Molina Moreau
Moreno Mori Morris Moyo Murphy Mwangi Nakamura Nguyen Nielsen Nilsson Njoroge Novak Nowak Nunez O'Brien O'Connor
Oduya Okafor Okonkwo Oliveira Olsen Osman Ozturk Park Patel Pereira Petrov Popov Qureshi Quinn Rahman Ramos Rao
Reyes Ricci Richter Rivera Romano Rossi Saito Salazar Santos Sato Schmidt Schneider Serrano Shah Sharma Silva Singh
Soares Sokolov Sousa Suzuki Svensson Takeda Tanaka Torres Tran Usman Vargas Vasquez Virtanen Vogel Wagner Walsh
Wang Watanabe Weber Wong Wu Yamada Yang Yilmaz Young Zhang Zhou Zimmermann
""".split()

CITIES = """
Accra|Amsterdam|Athens|Bangalore|Barcelona|Belgrade|Berlin|Bogotá|Bologna|Bratislava|Brno|Buenos Aires|Busan|Cairo|
Cape Town|Casablanca|Copenhagen|Cork|Dakar|Delhi|Dublin|Edinburgh|Florence|Gdańsk|Geneva|Ghent|Gothenburg|Graz|
Hamburg|Hanoi|Helsinki|Istanbul|Kampala|Kraków|Kyoto|Lagos|Leipzig|Lima|Lisbon|Ljubljana|London|Lyon|Madrid|Manila|
Melbourne|Mexico City|Milan|Montréal|Mumbai|Nairobi|Oslo|Osaka|Porto|Prague|Quito|Reykjavík|Riga|Rome|Rotterdam|
San José|Santiago|São Paulo|Seoul|Singapore|Sofia|Stockholm|Taipei|Tallinn|Tbilisi|Tokyo|Toronto|Turin|Utrecht|
Valencia|Vienna|Vilnius|Warsaw|Wellington|Zagreb|Zürich
""".replace("\n", "").split("|")

OCCUPATIONS = """
Architect|Astronomer|Baker|Botanist|Bookseller|Carpenter|Cartographer|Cellist|Ceramicist|Chef|Choreographer|
Climber|Data engineer|Database administrator|Designer|Doctor|Ecologist|Economist|Electrician|Film editor|Gardener|
Geologist|Historian|Illustrator|Journalist|Librarian|Linguist|Luthier|Mathematician|Mechanic|Meteorologist|Midwife|
Nurse|Painter|Photographer|Physicist|Pilot|Poet|Programmer|Sailor|Sculptor|Sound engineer|Statistician|Surgeon|
Teacher|Translator|Typographer|Veterinarian|Violinist|Watchmaker
""".replace("\n", "").split("|")

PASTIMES = """
long train rides|open water swimming|chess endings|fermented tea|old maps|mountain huts|field recordings|
crossword puzzles|night skies|sourdough|bicycle touring|vinyl records|birdsong|street photography|letterpress|
tide pools|board games|slow cooking|choral music|mushroom hunting|short stories|rock gardens|radio plays|
woodblock prints|film cameras|allotment gardening|folk dancing|fountain pens|cold lakes|quiet libraries
""".replace("\n", "").split("|")

OPENINGS = """
Spent the morning with|A whole week of|Nothing beats|Today I learned something about|
Can anybody recommend a book on|Back from a weekend of|Three years of|Still thinking about|Finally got round to|
A small note on|Reading up on|Taught a class on|My neighbour introduced me to|Rain outside, so it is time for|
New month, new project:|Grateful for|Everything I know about|An unpopular opinion about|Photos from a day of|
Planning a trip around
""".replace("\n", "").split("|")

CLOSINGS = """
and it was worth every minute.|and I would do it again tomorrow.|with people I had not seen for years.|
and far too much coffee.|which turned out harder than it looked.|and I have so many questions.|
before the rest of the house woke up.|with the windows wide open.|and only one minor disaster.|
and I changed my mind twice.|on the slowest train in the country.|and a notebook full of mistakes.|
with a borrowed toolbox.|while the bread was rising.|and not a single screen.|and yes, it snowed.|
for the very first time.|with the best company one could ask for.|and here is what I found.|
and my hands still hurt.
""".replace("\n", "").split("|")
